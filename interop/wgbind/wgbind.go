// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

// Package wgbind is a conn.Bind for wireguard-go on batchconn, to be copied.
package wgbind

import (
	"bytes"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/batchconn/batchconn"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.zx2c4.com/wireguard/conn"
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
	// What the system refuses of these is done without: StdNetBind's large buffers,
	// and to be told the address that each datagram came to, to answer from there.
	udp.SetReadBuffer(7 << 20)
	udp.SetWriteBuffer(7 << 20)
	ipv4.NewPacketConn(udp).SetControlMessage(ipv4.FlagDst, true)
	ipv6.NewPacketConn(udp).SetControlMessage(ipv6.FlagDst, true)
	c, err := batchconn.New(udp, b.cfg)
	if err != nil {
		udp.Close()
		return nil, 0, err
	}
	b.open.Store(c)
	return []conn.ReceiveFunc{receiver(c)}, uint16(c.LocalAddr().(*net.UDPAddr).Port), nil
}

// receiver reads batches. The device calls it from one goroutine.
func receiver(c *batchconn.Conn) conn.ReceiveFunc {
	ms := make([]ipv4.Message, conn.IdealBatchSize)
	for i := range ms {
		ms[i].OOB = make([]byte, 128)
	}
	last := newEndpoint(netip.AddrPort{}, nil) // most datagrams come from where the one before did
	return func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
		ms := ms[:min(len(bufs), len(ms))]
		for i := range ms {
			ms[i].Buffers = bufs[i : i+1]
		}
		n, err := c.ReadBatch(ms, 0)
		for i, m := range ms[:n] {
			from, info := m.Addr.(*net.UDPAddr).AddrPort(), m.OOB[:m.NN]
			if !last.is(from, info) {
				last = newEndpoint(from, info)
			}
			sizes[i], eps[i] = m.N, last
		}
		return n, err
	}
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
	return newEndpoint(dst, nil), err
}

func (b *Bind) BatchSize() int { return conn.IdealBatchSize }

// An endpoint is where a peer is, and how it came to us.
type endpoint struct {
	dst netip.AddrPort
	src atomic.Pointer[source] // never nil
}

// A source is the address to send from, if any. It names no interface: routes change.
type source struct {
	ip      netip.Addr
	info    []byte // the control messages that told us
	control []byte // those that tell the kernel
}

func newEndpoint(dst netip.AddrPort, info []byte) *endpoint {
	e, src := &endpoint{dst: netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())}, &source{info: bytes.Clone(info)}
	v4, v6 := ipv4.ControlMessage{}, ipv6.ControlMessage{}
	if e.dst.Addr().Is4() && v4.Parse(info) == nil && v4.Dst != nil {
		src.ip, src.control = netip.AddrFrom4([4]byte(v4.Dst.To4())), (&ipv4.ControlMessage{Src: v4.Dst}).Marshal()
	} else if e.dst.Addr().Is6() && v6.Parse(info) == nil && v6.Dst != nil {
		src.ip, src.control = netip.AddrFrom16([16]byte(v6.Dst.To16())), (&ipv6.ControlMessage{Src: v6.Dst}).Marshal()
	}
	e.src.Store(src)
	return e
}

// is reports whether a datagram came from e in the way that e knows.
func (e *endpoint) is(from netip.AddrPort, info []byte) bool {
	return e.dst.Port() == from.Port() && e.dst.Addr() == from.Addr().Unmap() && bytes.Equal(e.src.Load().info, info)
}

func (e *endpoint) ClearSrc()           { e.src.Store(new(source)) }
func (e *endpoint) SrcIP() netip.Addr   { return e.src.Load().ip }
func (e *endpoint) SrcToString() string { return e.SrcIP().String() }
func (e *endpoint) DstIP() netip.Addr   { return e.dst.Addr() }
func (e *endpoint) DstToString() string { return e.dst.String() }
func (e *endpoint) DstToBytes() []byte  { b, _ := e.dst.MarshalBinary(); return b }
