// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package interop

import (
	"net"
	"net/netip"
	"testing"

	"github.com/xtaci/kcp-go/v5"
	"golang.org/x/sync/errgroup"

	"github.com/batchconn/batchconn"
)

// kcpKinds are ours, and those that kcp-go does not look into: it batches by
// itself, through x/net and past us, what has a SyscallConn.
var kcpKinds = append(kinds[:2:2],
	kind{"conn, hidden", func(t testing.TB, c *net.UDPConn, _ func(netip.AddrPort, error)) net.PacketConn {
		return struct{ net.PacketConn }{newConn(t, c, nil)}
	}},
	kind{"writer, hidden", func(t testing.TB, c *net.UDPConn, _ func(netip.AddrPort, error)) net.PacketConn {
		return struct{ net.PacketConn }{batchconn.NewWriter(newConn(t, c, nil), nil)}
	}},
)

// kcpBytes is what goes each way.
func kcpBytes() int { return scaled(16<<20) / channelMessage * channelMessage }

// runKCP sends both ways at once through one session.
func runKCP(t *testing.T, s site) cost {
	at := s.open(t, far)
	listener, err := kcp.ServeConn(nil, 0, 0, at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	client, err := kcp.NewConn2(at.LocalAddr(), nil, 0, 0, s.open(t, near))
	if err != nil {
		t.Fatal(err)
	}
	data := noise(70, kcpBytes())
	start := begin()
	var g errgroup.Group
	run := func(session *kcp.UDPSession) {
		t.Cleanup(func() { session.Close() })
		//lint:ignore SA1019 there is no other way to have a stream
		session.SetStreamMode(true)
		session.SetNoDelay(1, 10, 2, 1)
		session.SetWindowSize(512, 512)
		g.Go(func() error { return writeMessages(session, data) })
		g.Go(func() error { return readMessages(session, data) })
	}
	run(client) // the server hears of the session by its first packet
	server, err := listener.AcceptKCP()
	if err != nil {
		t.Fatal(err)
	}
	run(server)
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return start.cost()
}
