package server_test

import (
	"bytes"
	"net"
	"net/http"
	"testing"

	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/rejoin/rejoin/server"
)

// BenchmarkOpen opens streams over HTTP/2, a hundred on each connection, in one go.
func BenchmarkOpen(b *testing.B) {
	handler, end := newHandler(newKeeper(b))
	s := handler.(*server.Server)
	b.Cleanup(s.Close)
	b.Cleanup(end)
	var head, requests bytes.Buffer
	encoder, framer := hpack.NewEncoder(&head), h2.NewFramer(&requests, nil)
	_ = framer.WriteSettings()
	const each = 100
	for i := range uint32(each) {
		head.Reset()
		for _, f := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "localhost"}, {":path", events}, {"accept", "text/event-stream"}} {
			_ = encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
		}
		_ = framer.WriteHeaders(h2.HeadersFrameParam{StreamID: 2*i + 1, BlockFragment: head.Bytes(), EndStream: true, EndHeaders: true})
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%each > 0 {
			continue
		}
		client, ours := tcpPair(b)
		if !s.ServeHTTP2(&http.Server{Handler: s}, ours) {
			b.Fatal("the engine does not take the connection")
		}
		if _, err := client.Write(requests.Bytes()); err != nil {
			b.Fatal(err)
		}
		answers := h2.NewFramer(client, client)
		for opened := 0; opened < each; {
			f, err := answers.ReadFrame()
			if err != nil {
				b.Fatal(err)
			}
			switch f.(type) {
			case *h2.DataFrame:
				opened++
			case *h2.GoAwayFrame, *h2.RSTStreamFrame:
				b.Fatal(f)
			}
		}
		client.Close()
	}
}

// tcpPair returns both ends of a connection.
func tcpPair(t testing.TB) (client, ours net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if ours, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return client, ours
}
