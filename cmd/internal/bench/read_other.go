//go:build !unix

package bench

import "net"

func readStream(conn net.Conn, take func([]byte) error) error { return readWhole(conn, take) }
