// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

// Package wgbind is a conn.Bind for wireguard-go on batchconn, to be copied.
package wgbind

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/batchconn/batchconn"
	"golang.zx2c4.com/wireguard/conn"
)

const socketBuffer = 7 << 20 // as StdNetBind's

// A Bind is one socket for both families, where the system has such.
type Bind struct {
	cfg  *batchconn.Config
	open atomic.Pointer[batchconn.Conn] // nil while closed
	msgs sync.Pool                      // of *[]batchconn.OutputMessage
}

// New makes a Bind whose socket is used as cfg says; nil is the default.
func New(cfg *batchconn.Config) *Bind {
	return &Bind{cfg: cfg, msgs: sync.Pool{New: func() any { return new([]batchconn.OutputMessage) }}}
}

func (b *Bind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	if b.open.Load() != nil {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	udp, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
	if err != nil {
		return nil, 0, err
	}
	// What the system refuses of these is done without: large buffers, and the
	// address that each datagram came to, to answer from.
	udp.SetReadBuffer(socketBuffer)
	udp.SetWriteBuffer(socketBuffer)
	c, err := batchconn.New(udp, b.cfg)
	if err != nil {
		udp.Close()
		return nil, 0, err
	}
	c.ReceiveControl(batchconn.ControlLocal)
	b.open.Store(c)
	return []conn.ReceiveFunc{newReceiver(c).receive}, uint16(c.LocalAddr().(*net.UDPAddr).Port), nil
}

// A receiver is called from one goroutine of the device.
type receiver struct {
	c    *batchconn.Conn
	msgs []batchconn.InputMessage
	from *endpoint // of the last datagram: most come from where the one before did
}

func newReceiver(c *batchconn.Conn) *receiver {
	r := &receiver{c: c, msgs: make([]batchconn.InputMessage, conn.IdealBatchSize), from: newEndpoint(netip.AddrPort{}, netip.Addr{})}
	for i := range r.msgs {
		r.msgs[i].Control = make([]byte, 256)
	}
	return r
}

func (r *receiver) receive(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	msgs := r.msgs[:min(len(bufs), len(r.msgs))]
	for i := range msgs {
		msgs[i].Vectors = bufs[i : i+1]
	}
	n, err := r.c.ReceiveMessages(nil, msgs, 0)
	for i, m := range msgs[:n] {
		var to batchconn.ControlMessage
		to.Parse(m.Control[:m.ControlReceived]) // of what cannot be read, the system picks the source
		if !r.from.is(m.Addr, to.Local) {
			r.from = newEndpoint(m.Addr, to.Local)
		}
		sizes[i], eps[i] = m.BytesReceived, r.from
	}
	return n, err
}

func (b *Bind) Send(bufs [][]byte, ep conn.Endpoint) (err error) {
	e, ok := ep.(*endpoint)
	if !ok {
		return conn.ErrWrongEndpointType
	}
	c := b.open.Load()
	if c == nil {
		return net.ErrClosed
	}
	pooled := b.msgs.Get().(*[]batchconn.OutputMessage)
	msgs, control := (*pooled)[:0], e.src.Load().control
	for i := range bufs {
		msgs = append(msgs, batchconn.OutputMessage{Addr: e.dst, Vectors: bufs[i : i+1], Control: control})
	}
	for n, rest := 0, msgs; len(rest) > 0 && err == nil; rest = rest[n:] {
		n, err = c.SendMessages(nil, rest, 0)
	}
	clear(msgs)
	*pooled = msgs
	b.msgs.Put(pooled)
	return err
}

func (b *Bind) Close() error {
	if c := b.open.Swap(nil); c != nil {
		return c.Close()
	}
	return nil
}

func (b *Bind) ParseEndpoint(s string) (conn.Endpoint, error) {
	dst, err := netip.ParseAddrPort(s)
	return newEndpoint(dst, netip.Addr{}), err
}

func (b *Bind) BatchSize() int { return conn.IdealBatchSize }
