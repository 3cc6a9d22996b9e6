// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package interop

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// runHTTP3 downloads what runQUIC moves each way.
func runHTTP3(t *testing.T, s site) cost {
	_, download := bulk()
	url := serveHTTP3(t, s.open(t, far), download)
	client := newHTTP3Client(t, s.open(t, near))
	get := func(method string, want []byte) {
		req, err := http.NewRequestWithContext(withPatience(t), method, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if err := readAll(resp.Body, want); err != nil {
			t.Fatal(err)
		}
	}
	get(http.MethodHead, nil) // the handshake
	start := begin()
	get(http.MethodGet, download)
	return start.cost()
}

func serveHTTP3(t *testing.T, c net.PacketConn, content []byte) (url string) {
	t.Helper()
	cert, _ := identity()
	server := &http3.Server{
		TLSConfig: http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{cert}}),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				w.Write(content)
			}
		}),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(c) }()
	t.Cleanup(func() {
		server.Close()
		<-served
	})
	return "https://" + c.LocalAddr().String() + "/"
}

func newHTTP3Client(t *testing.T, c net.PacketConn) *http.Client {
	t.Helper()
	_, pool := identity()
	socket := &quic.Transport{Conn: c}
	transport := &http3.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "localhost"},
		Dial: func(ctx context.Context, addr string, tlsConfig *tls.Config, cfg *quic.Config) (*quic.Conn, error) {
			to, err := net.ResolveUDPAddr("udp4", addr)
			if err != nil {
				return nil, err
			}
			return socket.DialEarly(ctx, to, tlsConfig, cfg)
		},
	}
	t.Cleanup(func() {
		transport.Close()
		socket.Close()
	})
	return &http.Client{Transport: transport}
}
