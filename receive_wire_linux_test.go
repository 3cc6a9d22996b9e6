// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/batchconn/batchconn/internal/netns"
)

// A wireReader reads what came by a wire, at least one datagram a call.
type wireReader struct {
	name string
	read func(c *Conn, got func(p []byte, from netip.AddrPort)) error
}

var wireReaders = []wireReader{
	{"ReceiveMessages", func(c *Conn, got func([]byte, netip.AddrPort)) error {
		msgs := make([]InputMessage, 37)
		for i := range msgs {
			msgs[i].Vectors = pieces(1+i%3, 1600)
		}
		n, err := c.ReceiveMessages(nil, msgs, 0)
		for _, m := range msgs[:n] {
			got(joined(m.Vectors, m.BytesReceived), m.Addr)
		}
		return err
	}},
	{"ReadFrom", func(c *Conn, got func([]byte, netip.AddrPort)) error {
		p := make([]byte, 1600)
		n, from, err := c.ReadFrom(p)
		if err == nil {
			got(p[:n], unmapped(addrPort(from)))
		}
		return err
	}},
	{"ReadBatch", func(c *Conn, got func([]byte, netip.AddrPort)) error {
		ms := make([]ipv4.Message, 8)
		for i := range ms {
			ms[i].Buffers = [][]byte{make([]byte, 1600)}
		}
		n, err := c.ReadBatch(ms, 0)
		for _, m := range ms[:n] {
			got(m.Buffers[0][:m.N], unmapped(addrPort(m.Addr)))
		}
		return err
	}},
	{"ReadMsgUDPAddrPort", func(c *Conn, got func([]byte, netip.AddrPort)) error {
		p := make([]byte, 1600)
		n, _, _, from, err := c.ReadMsgUDPAddrPort(p, nil)
		if err == nil {
			got(p[:n], unmapped(from))
		}
		return err
	}},
}

// wireSizes are those of datagram i: bursts of one size, the last one shorter,
// and empty and short ones between them.
func wireSize(i int) int {
	switch i % 60 {
	case 40:
		return 333
	case 41, 59:
		return 0
	case 50:
		return 17
	}
	return []int{1200, 1472 - 20, 100}[i/60%3] // 20 less: IPv6 has the longer header
}

// TestReceiveWire: what crosses a wire comes whole, once, in order and from its
// sender, however it is sent, merged on the way and read.
func TestReceiveWire(t *testing.T) {
	netns.Run(t, func(t *testing.T, ns *netns.Namespace) {
		netns.Check(t, netns.OneProcessor()) // two would not keep the order
		for _, flush := range []time.Duration{0, 200 * time.Microsecond} {
			w, err := ns.Wire(netns.WireConfig{FlushTimeout: flush})
			netns.Check(t, err)
			for _, network := range []string{"udp4", "udp6"} {
				for name, mode := range map[string]GSOMode{"segmented": GSOAuto, "plain": GSOOff} {
					for _, gro := range []GROMode{GROAuto, GROOn, GROOff} {
						t.Run(fmt.Sprint(flush, network, name, gro), func(t *testing.T) {
							if !w.Far.Addr(network).IsValid() {
								t.Skip("the system has no IPv6")
							}
							testReceiveWire(t, w, network, mode, gro, flush != 0)
						})
					}
				}
			}
			w.Close()
		}
	})
}

// A wireOrder checks what a wire brings. On its way the kernel merges what is
// not empty, and an empty datagram overtakes what waits for more to be merged
// with (udp_gro_receive_segment): of these only the number is the same.
type wireOrder struct {
	t           *testing.T
	from        netip.AddrPort
	next, empty int
	skipped     int // empty ones before next
}

func (o *wireOrder) all() int { return o.next - o.skipped + o.empty }

func (o *wireOrder) take(p []byte, from netip.AddrPort) {
	o.t.Helper()
	if len(p) == 0 && from == o.from {
		o.empty++
		return
	}
	for ; wireSize(o.next) == 0; o.next++ {
		o.skipped++
	}
	if want := contents(o.next, wireSize(o.next)); !bytes.Equal(p, want) || from != o.from {
		o.t.Fatalf("datagram %d is %s from %v, want %s from %v", o.next, brief(p), from, brief(want), o.from)
	}
	o.next++
}

func testReceiveWire(t *testing.T, w *netns.Wire, network string, gso GSOMode, gro GROMode, merges bool) {
	rx, err := w.Far.Listen(network)
	netns.Check(t, err)
	growBuffer(rx)
	in := newConn(t, rx, &Config{GRO: gro})
	tx, err := w.Near.Listen(network)
	netns.Check(t, err)
	out := newConn(t, tx, &Config{GSO: gso})
	const burst, bursts = 120, 25
	got := &wireOrder{t: t, from: addrPortOf(tx)}
	in.SetReadDeadline(time.Now().Add(patience))
	for i := range bursts {
		sendWire(t, out, addrPortOf(rx), i*burst, burst)
		for call := i; got.all() < (i+1)*burst; call++ {
			r := wireReaders[call%len(wireReaders)]
			if err := r.read(in, got.take); err != nil {
				t.Fatalf("%s, after %d of %d: %v", r.name, got.all(), (i+1)*burst, err)
			}
		}
	}
	nothingMore(t, in)
	s := in.Stats()
	if s.Received != burst*bursts || s.Dropped != 0 {
		t.Errorf("%+v; sent %d", s, burst*bursts)
	}
	if got.empty != bursts*burst/60*2 {
		t.Errorf("%d empty datagrams", got.empty)
	}
	if mayMerge := s.GRO && (gso == GSOAuto || merges); mayMerge && s.Coalesced == 0 {
		t.Errorf("nothing was coalesced: %+v", s)
	}
	t.Logf("%d datagrams in %d calls, %d of them coalesced", s.Received, s.ReceiveCalls, s.Coalesced)
}

// sendWire sends n datagrams from number first on.
func sendWire(t *testing.T, out *Conn, to netip.AddrPort, first, n int) {
	t.Helper()
	msgs := make([]OutputMessage, n)
	for i := range msgs {
		msgs[i] = OutputMessage{Addr: to, Vectors: [][]byte{contents(first+i, wireSize(first+i))}}
	}
	if err := sendAll(out, nil, msgs); err != nil {
		t.Fatal(err)
	}
}

// nothingMore makes sure that c has no datagram.
func nothingMore(t testing.TB, c *Conn) {
	t.Helper()
	c.SetReadDeadline(time.Time{})
	if n, from, err := c.ReceiveFrom(nil, make([]byte, 2000), MsgDontWait); err == nil {
		t.Errorf("one datagram too many: %d bytes from %v", n, from)
	} else {
		checkWouldBlockRead(t, err)
	}
}

func checkWouldBlockRead(t testing.TB, err error) {
	t.Helper()
	if op, ok := err.(*net.OpError); !ok || op.Op != "read" || op.Err != ErrWouldBlock {
		t.Errorf("%v is not one OpError of a read around ErrWouldBlock", err)
	}
}
