// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package reading

import (
	"net/netip"

	"github.com/batchconn/batchconn"
	"golang.org/x/net/ipv4"

	"github.com/batchconn/batchconn/internal/harness"
)

// Net is the loop that everything is compared with, in net's form that
// allocates nothing.
var Net = Way{"net ReadFromUDPAddrPort loop", func(m *harness.Mailbag, at netip.Addr) (*Socket, error) {
	u, addr, err := listen(at)
	if err != nil {
		return nil, err
	}
	return &Socket{addr, readEach(m, u.ReadFromUDPAddrPort), u.SetReadDeadline, u.Close, false}, nil
}}

// NetReadFrom is net's loop in the form of net.PacketConn, which allocates an
// address for each datagram.
var NetReadFrom = Way{"net ReadFrom loop", func(m *harness.Mailbag, at netip.Addr) (*Socket, error) {
	u, addr, err := listen(at)
	if err != nil {
		return nil, err
	}
	return &Socket{addr, readEach(m, u.ReadFrom), u.SetReadDeadline, u.Close, false}, nil
}}

// readEach reads one datagram a call.
func readEach[A any](m *harness.Mailbag, read func(p []byte) (int, A, error)) func(i int) (int, error) {
	return func(i int) (int, error) {
		n, _, err := read(m.Buffers[i])
		if err != nil {
			return 0, err
		}
		m.Lengths[i] = n
		return 1, nil
	}
}

// xnetBatch is how many messages a call of ReadBatch or ReceiveMessages gets.
const xnetBatch = 64

// XNet is the ReadBatch of golang.org/x/net.
var XNet = Way{"x/net ReadBatch", func(m *harness.Mailbag, at netip.Addr) (*Socket, error) {
	u, addr, err := listen(at)
	if err != nil {
		return nil, err
	}
	return &Socket{addr, readBatches(m, ipv4.NewPacketConn(u).ReadBatch), u.SetReadDeadline, u.Close, false}, nil
}}

func readBatches(m *harness.Mailbag, read func(ms []ipv4.Message, flags int) (int, error)) func(i int) (int, error) {
	ms := make([]ipv4.Message, len(m.Buffers))
	for i := range ms {
		ms[i].Buffers = m.Buffers[i : i+1]
	}
	return func(i int) (int, error) {
		n, err := read(ms[i:min(i+xnetBatch, len(ms))], 0)
		for k := range max(n, 0) {
			m.Lengths[i+k] = ms[i+k].N
		}
		return max(n, 0), err // x/net's is -1 with an error
	}
}

// The ways of batchconn.
var (
	ConnLoop = Way{"batchconn ReadFromUDPAddrPort loop", open(func(m *harness.Mailbag, c *batchconn.Conn) func(int) (int, error) {
		return readEach(m, c.ReadFromUDPAddrPort)
	})}
	ConnReadFrom = Way{"batchconn ReadFrom loop", open(func(m *harness.Mailbag, c *batchconn.Conn) func(int) (int, error) {
		return readEach(m, c.ReadFrom)
	})}
	ConnReadBatch = Way{"batchconn ReadBatch", open(func(m *harness.Mailbag, c *batchconn.Conn) func(int) (int, error) {
		return readBatches(m, c.ReadBatch)
	})}
	ConnMessages = Way{"batchconn ReceiveMessages", open(readMessages)}
)

func readMessages(m *harness.Mailbag, c *batchconn.Conn) func(int) (int, error) {
	msgs := make([]batchconn.InputMessage, len(m.Buffers))
	for i := range msgs {
		msgs[i].Vectors = m.Buffers[i : i+1]
	}
	return func(i int) (int, error) {
		n, err := c.ReceiveMessages(nil, msgs[i:min(i+xnetBatch, len(msgs))], 0)
		for k := range n {
			m.Lengths[i+k] = msgs[i+k].BytesReceived
		}
		return n, err
	}
}

func open(read func(*harness.Mailbag, *batchconn.Conn) func(int) (int, error)) func(*harness.Mailbag, netip.Addr) (*Socket, error) {
	return func(m *harness.Mailbag, at netip.Addr) (*Socket, error) {
		u, addr, err := listen(at)
		if err != nil {
			return nil, err
		}
		c, err := batchconn.New(u, nil)
		if err != nil {
			u.Close()
			return nil, err
		}
		return &Socket{addr, read(m, c), c.SetReadDeadline, c.Close, true}, nil
	}
}
