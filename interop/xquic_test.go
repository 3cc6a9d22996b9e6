// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package interop

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"testing"

	"golang.org/x/net/quic"
	"golang.org/x/sync/errgroup"
)

// xquicBytes is what goes each way.
func xquicBytes() int { return scaled(16 << 20) }

// runXNetQUIC sends both ways at once over one stream of golang.org/x/net/quic.
func runXNetQUIC(t *testing.T, s site) cost {
	cert, pool := identity()
	server := newXQUICEndpoint(t, s.open(t, near), &tls.Config{Certificates: []tls.Certificate{cert}})
	client := newXQUICEndpoint(t, s.open(t, far), nil)
	ctx := withPatience(t)
	dialed, err := client.Dial(ctx, "udp", server.LocalAddr().String(), &quic.Config{
		TLSConfig: &tls.Config{RootCAs: pool, ServerName: "localhost", MinVersion: tls.VersionTLS13, NextProtos: []string{quicProtocol}},
	})
	if err != nil {
		t.Fatal(err)
	}
	upload, download := noise(40, xquicBytes()), noise(41, xquicBytes())
	start := begin()
	var g errgroup.Group
	g.Go(func() error {
		accepted, err := server.Accept(ctx)
		if err != nil {
			return err
		}
		s, err := accepted.AcceptStream(ctx)
		if err != nil {
			return err
		}
		return exchangeXQUIC(ctx, s, download, upload)
	})
	g.Go(func() error {
		s, err := dialed.NewStream(ctx)
		if err != nil {
			return err
		}
		return exchangeXQUIC(ctx, s, upload, download)
	})
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return start.cost()
}

func newXQUICEndpoint(t *testing.T, c net.PacketConn, server *tls.Config) *quic.Endpoint {
	t.Helper()
	var cfg *quic.Config
	if server != nil {
		server.MinVersion, server.NextProtos = tls.VersionTLS13, []string{quicProtocol}
		cfg = &quic.Config{TLSConfig: server}
	}
	e, err := quic.NewEndpoint(c, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // drain nothing
		e.Close(ctx)
	})
	return e
}

func exchangeXQUIC(ctx context.Context, s *quic.Stream, out, in []byte) error {
	s.SetReadContext(ctx)
	s.SetWriteContext(ctx)
	var g errgroup.Group
	g.Go(func() error {
		if _, err := s.Write(out); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		s.CloseWrite()
		return nil
	})
	g.Go(func() error {
		return readAll(s, in)
	})
	return g.Wait()
}
