// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package way

import (
	"context"
	"net"
	"net/netip"

	"github.com/batchconn/batchconn"
	"github.com/batchconn/batchconn/internal/harness"
	"golang.org/x/net/ipv4"
)

// Net is the loop that everything is compared with, in net's form that
// allocates nothing.
var Net = Way{Name: "net WriteTo loop", Open: func(*Load) (*Socket, error) {
	u, err := Listen()
	if err != nil {
		return nil, err
	}
	return &Socket{Sender: func(b *Batch) Sender { return writeEach(u, b) }, Close: u.Close}, nil
}}

// XNet is the WriteBatch of golang.org/x/net.
var XNet = Way{Name: "x/net WriteBatch", Open: openXNet((*Batch).messages)}

func openXNet(messages func(b *Batch) []ipv4.Message) func(*Load) (*Socket, error) {
	return func(*Load) (*Socket, error) {
		u, err := Listen()
		if err != nil {
			return nil, err
		}
		pc := ipv4.NewPacketConn(u)
		return &Socket{Sender: func(b *Batch) Sender {
			ms := messages(b)
			return Repeat(b.Count, func() error { return harness.WriteAll(pc, ms) })
		}, Close: u.Close}, nil
	}
}

// The ways of batchconn.
var (
	SendMessages    = Way{Name: "batchconn SendMessages", Open: open(nil, (*Batch).sendMessages)}
	SendMessagesOff = Way{Name: "batchconn SendMessages, GSO off", Open: open(&batchconn.Config{GSO: batchconn.GSOOff}, (*Batch).sendMessages)}
	AppendSegments  = Way{Name: "batchconn AppendSegments, SendMessages", Open: open(nil, (*Batch).appendSegments)}
	WriteBatch      = Way{Name: "batchconn WriteBatch", Open: open(nil, func(b *Batch, c *batchconn.Conn) func() error {
		ms := b.messages()
		return func() error { return harness.WriteAll(c, ms) }
	})}
	SendEach = Way{Name: "batchconn SendEach", Open: open(nil, func(b *Batch, c *batchconn.Conn) func() error {
		ms := b.outputMessages()
		return func() error {
			_, err := c.SendEach(context.Background(), ms, 0)
			return err
		}
	})}
	Writer = Way{Name: "batchconn Writer", Open: openWriter}
)

func open(cfg *batchconn.Config, sender func(*Batch, *batchconn.Conn) func() error) func(*Load) (*Socket, error) {
	return func(*Load) (*Socket, error) {
		u, err := Listen()
		if err != nil {
			return nil, err
		}
		c, err := batchconn.New(u, cfg)
		if err != nil {
			u.Close()
			return nil, err
		}
		return &Socket{Sender: func(b *Batch) Sender { return Repeat(b.Count, sender(b, c)) }, Close: c.Close}, nil
	}
}

func openWriter(*Load) (*Socket, error) {
	u, err := Listen()
	if err != nil {
		return nil, err
	}
	c, err := batchconn.New(u, nil)
	if err != nil {
		u.Close()
		return nil, err
	}
	w := batchconn.NewWriter(c, nil)
	return &Socket{
		Sender: func(b *Batch) Sender { return writeEach(w, b) },
		Flush:  func() error { return w.Flush(context.Background()) },
		Close:  w.Close,
	}, nil
}

func (b *Batch) outputMessages() []batchconn.OutputMessage {
	ms := make([]batchconn.OutputMessage, b.Count)
	for i, p := range b.Datagrams {
		ms[i] = batchconn.OutputMessage{Addr: b.Destination(i), Vectors: [][]byte{p}}
	}
	return ms
}

func (b *Batch) sendMessages(c *batchconn.Conn) func() error {
	ms := b.outputMessages()
	return func() error { return harness.SendAll(c, context.Background(), ms) }
}

// appendSegments makes the messages anew for each send.
func (b *Batch) appendSegments(c *batchconn.Conn) func() error {
	var ms []batchconn.OutputMessage
	payload := b.Together(0, b.Count)
	return func() error {
		ms = ms[:0]
		for i := 0; i < b.Count; {
			n := b.Run(i, b.Count)
			ms = batchconn.AppendSegments(ms, b.Destination(i), payload[i*b.Size:(i+n)*b.Size], b.Size, nil)
			i += n
		}
		return harness.SendAll(c, context.Background(), ms)
	}
}

func (b *Batch) messages() []ipv4.Message {
	ms := make([]ipv4.Message, b.Count)
	for i, p := range b.Datagrams {
		ms[i] = ipv4.Message{Addr: net.UDPAddrFromAddrPort(b.Destination(i)), Buffers: [][]byte{p}}
	}
	return ms
}

// writeEach sends with one write for each datagram.
func writeEach(w interface {
	WriteToUDPAddrPort([]byte, netip.AddrPort) (int, error)
}, b *Batch) Sender {
	to := make([]netip.AddrPort, b.Count)
	for i := range to {
		to[i] = b.Destination(i)
	}
	return Repeat(b.Count, func() error {
		for i, p := range b.Datagrams {
			if _, err := w.WriteToUDPAddrPort(p, to[i]); err != nil {
				return err
			}
		}
		return nil
	})
}
