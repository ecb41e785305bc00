// Package testserver runs what surrounds a node, for tests: Postgres and Redis as
// processes of their own, which a test may stop, kill, freeze and start again with
// the same data, and a TCP [Proxy] that stands between a client and a server and
// fails on demand. It also makes certificates and, on Linux, small disks to fill.
//
// All that a test starts ends with the test, or with the process that runs it,
// even if that is killed.
package testserver
