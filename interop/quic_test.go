// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package interop

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/sync/errgroup"
)

const quicProtocol = "interop"

// A quicPair is two transports on sockets of one kind, the server's listening.
type quicPair struct {
	server, client *quic.Transport
	listener       *quic.Listener
}

func newQUICPair(t *testing.T, server, client net.PacketConn) *quicPair {
	t.Helper()
	p := &quicPair{server: &quic.Transport{Conn: server}, client: &quic.Transport{Conn: client}}
	t.Cleanup(func() {
		p.client.Close()
		p.server.Close()
	})
	cert, _ := identity()
	var err error
	p.listener, err = p.server.Listen(&tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{quicProtocol}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// dial makes a connection that lasts no longer than ctx.
func (p *quicPair) dial(ctx context.Context) (*quic.Conn, error) {
	_, pool := identity()
	c, err := p.client.Dial(ctx, p.server.Conn.LocalAddr(), &tls.Config{RootCAs: pool, ServerName: "localhost", NextProtos: []string{quicProtocol}}, nil)
	if err == nil {
		context.AfterFunc(ctx, func() { c.CloseWithError(1, "out of patience") })
	}
	return c, err
}

// connect is one connection, seen from both ends.
func (p *quicPair) connect(t *testing.T, ctx context.Context) (server, client *quic.Conn) {
	t.Helper()
	client, err := p.dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	server, err = p.listener.Accept(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return server, client
}

// bulk is what goes each way, and its hash.
var bulk = sync.OnceValues(func() (upload, download []byte) { return noise(1, scaled(64<<20)), noise(2, scaled(64<<20)) })

// exchange writes out to a stream while it reads from it, and checks that what
// came is in.
func exchange(s *quic.Stream, out, in []byte) error {
	var g errgroup.Group
	g.Go(func() error {
		if _, err := s.Write(out); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		return s.Close()
	})
	g.Go(func() error {
		return readAll(s, in)
	})
	return g.Wait()
}

func runQUIC(t *testing.T, s site) cost {
	upload, download := bulk()
	return quicBulk(t, newQUICPair(t, s.open(t, near), s.open(t, far)), upload, download)
}

// quicBulk sends both ways at once over one stream of one connection.
func quicBulk(t *testing.T, p *quicPair, upload, download []byte) cost {
	t.Helper()
	ctx := withPatience(t)
	server, client := p.connect(t, ctx)
	for _, c := range []*quic.Conn{server, client} {
		if got := c.ConnectionState().GSO; got != wantGSO {
			t.Errorf("ConnectionState.GSO is %v, want %v", got, wantGSO)
		}
	}
	start := begin()
	var g errgroup.Group
	g.Go(func() error {
		s, err := server.AcceptStream(ctx)
		if err != nil {
			return err
		}
		return exchange(s, download, upload)
	})
	g.Go(func() error {
		s, err := client.OpenStreamSync(ctx)
		if err != nil {
			return err
		}
		return exchange(s, upload, download)
	})
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return start.cost()
}

// runQUICConns runs two hundred connections on one pair of sockets at once.
func runQUICConns(t *testing.T, s site) cost {
	const conns = 200
	upload, download := bulk()
	part := func(b []byte, i int) []byte { return b[len(b)/conns*i : len(b)/conns*(i+1)] }
	p := newQUICPair(t, s.open(t, near), s.open(t, far))
	ctx := withPatience(t)
	start := begin()
	var g errgroup.Group
	for range conns {
		g.Go(func() error {
			return serveNumbered(ctx, p, func(i int) (out, in []byte) { return part(download, i), part(upload, i) })
		})
	}
	for i := range conns {
		g.Go(func() error {
			c, err := p.dial(ctx)
			if err != nil {
				return err
			}
			s, err := c.OpenStreamSync(ctx)
			if err != nil {
				return err
			}
			if _, err := s.Write([]byte{byte(i)}); err != nil {
				return err
			}
			return exchange(s, part(upload, i), part(download, i))
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return start.cost()
}

// serveNumbered accepts a connection whose first byte says which data are its.
func serveNumbered(ctx context.Context, p *quicPair, data func(i int) (out, in []byte)) error {
	c, err := p.listener.Accept(ctx)
	if err != nil {
		return err
	}
	s, err := c.AcceptStream(ctx)
	if err != nil {
		return err
	}
	var number [1]byte
	if _, err := io.ReadFull(s, number[:]); err != nil {
		return err
	}
	out, in := data(int(number[0]))
	return exchange(s, out, in)
}

// runQUICAbort ends transfers in the middle, one way after the other, on a pair
// of sockets that another connection shares, and expects that one unharmed.
func runQUICAbort(t *testing.T, s site) cost {
	aborts := []struct {
		name  string
		abort func(t *testing.T, server, client *quic.Conn, s *quic.Stream)
	}{
		{"CancelWrite", func(t *testing.T, server, client *quic.Conn, s *quic.Stream) { s.CancelWrite(7) }},
		{"CancelRead", func(t *testing.T, server, client *quic.Conn, s *quic.Stream) { s.CancelRead(7) }},
		{"SetDeadline", func(t *testing.T, server, client *quic.Conn, s *quic.Stream) { s.SetDeadline(time.Unix(1, 0)) }},
		{"client's CloseWithError", func(t *testing.T, server, client *quic.Conn, s *quic.Stream) { client.CloseWithError(7, "enough") }},
		{"server's CloseWithError", func(t *testing.T, server, client *quic.Conn, s *quic.Stream) { server.CloseWithError(7, "enough") }},
	}
	p := newQUICPair(t, s.open(t, near), s.open(t, far))
	ctx := withPatience(t)
	bystanderServer, bystanderClient := p.connect(t, ctx)
	for _, a := range aborts {
		server, client := p.connect(t, ctx)
		abortTransfer(t, ctx, server, client, func(s *quic.Stream) { a.abort(t, server, client, s) }, a.name)
		client.CloseWithError(0, "")
		server.CloseWithError(0, "")
		if err := ping(ctx, bystanderServer, bystanderClient); err != nil {
			t.Fatalf("%s hurt another connection: %v", a.name, err)
		}
	}
	abortByClosing(t, ctx, p)
	return cost{}
}

// abortTransfer has the server send without end, aborts once a megabyte came,
// and waits for both ends to fail.
func abortTransfer(t *testing.T, ctx context.Context, server, client *quic.Conn, abort func(*quic.Stream), name string) {
	t.Helper()
	s, err := client.OpenStreamSync(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte("go")); err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() { sent <- sendForever(ctx, server) }()
	if _, err := io.CopyN(io.Discard, s, 1<<20); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	abort(s)
	_, readErr := io.Copy(io.Discard, io.LimitReader(s, 1<<20))
	_, writeErr := s.Write([]byte("more"))
	if readErr == nil && writeErr == nil {
		t.Fatalf("%s: neither read nor write failed", name)
	}
	s.CancelRead(8)
	select {
	case err := <-sent:
		if err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%s: the sender ended with %v", name, err)
		}
	case <-ctx.Done():
		t.Fatalf("%s: the sender does not end", name)
	}
}

func sendForever(ctx context.Context, c *quic.Conn) error {
	s, err := c.AcceptStream(ctx)
	if err != nil {
		return err
	}
	upload, _ := bulk()
	for {
		if _, err := s.Write(upload[:1<<20]); err != nil {
			return err
		}
	}
}

// ping sends a few bytes there and back.
func ping(ctx context.Context, server, client *quic.Conn) error {
	s, err := client.OpenStreamSync(ctx)
	if err != nil {
		return err
	}
	msg := []byte("are you there?")
	if _, err := s.Write(msg); err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	other, err := server.AcceptStream(ctx)
	if err != nil {
		return err
	}
	if _, err := io.Copy(other, other); err != nil {
		return err
	}
	if err := other.Close(); err != nil {
		return err
	}
	got, err := io.ReadAll(s)
	if err == nil && !bytes.Equal(got, msg) {
		err = fmt.Errorf("got %q back", got)
	}
	return err
}

// abortByClosing closes the client's transport and its socket under a running
// transfer. The bytes still under way reach nobody; the server's end goes by
// its own Close.
func abortByClosing(t *testing.T, ctx context.Context, p *quicPair) {
	t.Helper()
	server, client := p.connect(t, ctx)
	s, err := client.OpenStreamSync(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write([]byte("go")); err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() { sent <- sendForever(ctx, server) }()
	if _, err := io.CopyN(io.Discard, s, 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := p.client.Conn.Close(); err != nil { // the socket, and the transport finds out
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, s); err == nil {
		t.Fatal("a stream ended well on a closed socket")
	}
	p.client.Close()
	p.server.Close()
	select {
	case <-sent:
	case <-ctx.Done():
		t.Fatal("the sender does not end")
	}
}
