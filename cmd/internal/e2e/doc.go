// Package e2e tests whole deployments: nodes as processes, with Postgres, Redis,
// browsers and other clients that are run and not imitated. Nothing imports it.
//
//	go test ./cmd/internal/e2e -list .          list the tests
//	go test ./cmd/internal/e2e -run Cluster     run a family of them
//	make test-short                             run everything else
//
// The families, by the beginnings of their files:
//
//	docs, ai, clients_page      the examples of README.md and docs
//	bench, verify, interrupt    the commands that measure and prove
//	operator                    the commands that look after feeds
//	publish, stream             streams of events that are published, and their cost
//	browser, clients, follow    Chromium, Node, curl and Python as clients
//	cluster, many               several nodes with Postgres, with Redis and without; many feeds a connection
//	drain, expiry, file, kill   one node that stops, or loses something
//	reload, rolling             a new configuration, and a restart of all nodes behind nginx
//	traces                      spans of events, as a collector gets them
//	hardening, hosts, halfopen  attacks, and networks that lose packets
//	metrics                     metrics, alerts and the dashboard, judged by Prometheus's own tool
//	protocols, limits, guarded  every version of HTTP, limits, tokens and TLS
//	soak, hostile               hours of ordinary and of hostile traffic, in short
//	torture                     faults at random against the promise (docs/torture.md)
//
// The command is built once a run, from ./cmd/rejoin (process_test.go). Programs
// that the tests need come with .ci/parts.
package e2e
