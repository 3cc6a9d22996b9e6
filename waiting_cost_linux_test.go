// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"flag"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/batchconn/batchconn/internal/harness"
	"github.com/batchconn/batchconn/internal/netns"
)

var waitingCost = flag.Duration("waitingcost", 0, "how long each turn of TestWaitingCost sends; by default it is not run")

// TestWaitingCost is a measurement, not a check: what a datagram costs the
// processor on a link that is slower than the sender, beside x/net's batches, in
// turns on the same link.
func TestWaitingCost(t *testing.T) {
	if *waitingCost == 0 {
		t.Skip("asked for by -waitingcost 300ms")
	}
	netns.Run(t, func(t *testing.T, ns *netns.Namespace) {
		for _, mbits := range []uint32{100, 400, 1000} {
			t.Run(fmt.Sprintf("%d Mbit/s", mbits), func(t *testing.T) { measureWaiting(t, ns, mbits*1e6/8) })
		}
	})
}

func measureWaiting(t *testing.T, ns *netns.Namespace, rate uint32) {
	w, err := ns.Wire(netns.WireConfig{Bucket: netns.Bucket{Rate: rate, Burst: 64 << 10, Limit: 4 << 20}})
	netns.Check(t, err)
	defer w.Close()
	at := func(e *netns.End) *net.UDPConn {
		u, err := e.Listen("udp4")
		netns.Check(t, err)
		t.Cleanup(func() { u.Close() })
		return u
	}
	to := addrPortOf(at(w.Far))
	const batch, size, rounds = 64, 1200, 9
	ways := []func() error{
		xnetWaiter(at(w.Near), to, batch, size),
		connWaiter(t, at(w.Near), to, batch, size, GSOAuto),
		connWaiter(t, at(w.Near), to, batch, size, GSOOff),
	}
	var ratios, allocs [3][]float64
	for range rounds {
		var base float64
		for i, send := range ways {
			cost, allocated := waitingTurn(t, send, batch)
			if i == 0 {
				base = cost
			}
			ratios[i], allocs[i] = append(ratios[i], cost/base), append(allocs[i], allocated)
		}
	}
	for i, name := range []string{"x/net", "SendMessages", "SendMessages, GSOOff"} {
		t.Logf("%s: %.2f of x/net's processor time (quartiles %.2f and %.2f), %.4f allocations a datagram", name,
			harness.Median(ratios[i]), harness.Quantile(ratios[i], 0.25), harness.Quantile(ratios[i], 0.75), harness.Median(allocs[i]))
	}
}

// waitingTurn is processor time, in nanoseconds, and allocations a datagram.
func waitingTurn(t *testing.T, send func() error, batch int) (cost, allocs float64) {
	var before, after runtime.MemStats
	send() // fills the socket, which the other way has left alone
	runtime.ReadMemStats(&before)
	cpu, n := cpuTime(t), 0
	for end := time.Now().Add(*waitingCost); time.Now().Before(end); n += batch {
		if err := send(); err != nil {
			t.Fatal(err)
		}
	}
	cpu = cpuTime(t) - cpu
	runtime.ReadMemStats(&after)
	return float64(cpu) / float64(n), float64(after.Mallocs-before.Mallocs) / float64(n)
}

func xnetWaiter(u *net.UDPConn, to netip.AddrPort, batch, size int) func() error {
	ms := make([]ipv4.Message, batch)
	for i := range ms {
		ms[i] = ipv4.Message{Buffers: [][]byte{make([]byte, size)}, Addr: net.UDPAddrFromAddrPort(to)}
	}
	c := ipv4.NewPacketConn(u)
	return func() error {
		for rest := ms; len(rest) > 0; {
			n, err := c.WriteBatch(rest, 0)
			if err != nil {
				return err
			}
			rest = rest[n:]
		}
		return nil
	}
}

func connWaiter(t *testing.T, u *net.UDPConn, to netip.AddrPort, batch, size int, gso GSOMode) func() error {
	msgs := make([]OutputMessage, batch)
	for i := range msgs {
		msgs[i] = OutputMessage{Addr: to, Vectors: [][]byte{make([]byte, size)}}
	}
	c := newConn(t, u, &Config{GSO: gso})
	return func() error {
		_, err := c.SendMessages(nil, msgs, 0)
		return err
	}
}
