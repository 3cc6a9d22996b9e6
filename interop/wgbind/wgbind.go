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
	"golang.org/x/net/ipv4"
	"golang.zx2c4.com/wireguard/conn"
)

const (
	socketBuffer = 7 << 20  // as StdNetBind's
	receiveBatch = 8        // messages of one read
	messageSize  = 64 << 10 // of one message
)

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
	// What the system refuses of these is done without: large buffers, many
	// datagrams in one message, and below the address that each came to, to answer
	// from.
	udp.SetReadBuffer(socketBuffer)
	udp.SetWriteBuffer(socketBuffer)
	joinReceived(udp)
	c, err := batchconn.New(udp, b.cfg)
	if err != nil {
		udp.Close()
		return nil, 0, err
	}
	c.ReceiveControl(batchconn.ControlLocal)
	b.open.Store(c)
	return []conn.ReceiveFunc{newReceiver(c).receive}, uint16(c.LocalAddr().(*net.UDPAddr).Port), nil
}

// A receiver reads messages, each of one datagram or of several that the kernel
// joined, and hands out the datagrams. The device calls it from one goroutine.
type receiver struct {
	c    *batchconn.Conn
	ms   []ipv4.Message
	left []ipv4.Message // of ms, not handed out yet
	at   int            // how much of left[0] is handed out
	from *endpoint      // of the last message: most come from where the one before did
}

func newReceiver(c *batchconn.Conn) *receiver {
	r := &receiver{c: c, ms: make([]ipv4.Message, receiveBatch), from: newEndpoint(netip.AddrPort{}, netip.Addr{})}
	for i := range r.ms {
		r.ms[i].Buffers, r.ms[i].OOB = [][]byte{make([]byte, messageSize)}, make([]byte, 128)
	}
	return r
}

func (r *receiver) receive(bufs [][]byte, sizes []int, eps []conn.Endpoint) (n int, err error) {
	if len(r.left) == 0 {
		k, err := r.c.ReadBatch(r.ms, 0)
		if err != nil {
			return 0, err
		}
		r.left = r.ms[:k]
	}
	for ; len(r.left) > 0; r.left, r.at = r.left[1:], 0 {
		m := &r.left[0]
		size, control := joined(m)
		var to batchconn.ControlMessage
		to.Parse(control) // of what cannot be read, the system picks the source
		if from := m.Addr.(*net.UDPAddr).AddrPort(); !r.from.is(from, to.Local) {
			r.from = newEndpoint(from, to.Local)
		}
		for r.at < m.N {
			if n == len(bufs) {
				return n, nil
			}
			end := min(r.at+size, m.N)
			sizes[n], eps[n] = copy(bufs[n], m.Buffers[0][r.at:end]), r.from
			n, r.at = n+1, end
		}
	}
	return n, nil
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
