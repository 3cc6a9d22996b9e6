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
	senders := waitingSenders(t, func() *net.UDPConn { return at(w.Near) }, addrPortOf(at(w.Far)))
	const rounds = 9
	ratios, allocs := make([][]float64, len(senders)), make([][]float64, len(senders))
	var costs [rounds + 1][]float64
	netns.Check(t, harness.Alternate(len(costs), len(senders), func(round, i int) error {
		cost, allocated, err := waitingTurn(senders[i].send)
		if costs[round] == nil {
			costs[round] = make([]float64, len(senders))
		}
		costs[round][i], allocs[i] = cost, append(allocs[i], allocated)
		return err
	}))
	for i, s := range senders {
		for _, cost := range costs[1:] { // pools and sockets fill in the first round
			ratios[i] = append(ratios[i], cost[i]/cost[0])
		}
		t.Logf("%s: %.2f of x/net's processor time (quartiles %.2f and %.2f), %.4f allocations a datagram", s.name,
			harness.Median(ratios[i]), harness.Quantile(ratios[i], 0.25), harness.Quantile(ratios[i], 0.75), harness.Median(allocs[i][1:]))
	}
}

const waitingBatch = 64

// A waitingSender sends waitingBatch datagrams.
type waitingSender struct {
	name string
	send func() error
}

// waitingSenders are those that are compared, each on a socket of its own. The
// first is x/net.
func waitingSenders(t *testing.T, open func() *net.UDPConn, to netip.AddrPort) []waitingSender {
	msgs := make([]OutputMessage, waitingBatch)
	for i := range msgs {
		msgs[i] = OutputMessage{Addr: to, Vectors: [][]byte{make([]byte, 1200)}}
	}
	ms, xnet := xnetMessages(msgs), ipv4.NewPacketConn(open())
	auto, off := newConn(t, open(), nil), newConn(t, open(), &Config{GSO: GSOOff})
	return []waitingSender{
		{"x/net", func() error { return harness.WriteAll(xnet, ms) }},
		{"SendMessages", func() error { return harness.SendAll(auto, nil, msgs) }},
		{"SendMessages, GSOOff", func() error { return harness.SendAll(off, nil, msgs) }},
	}
}

// waitingTurn is processor time, in nanoseconds, and allocations a datagram.
func waitingTurn(send func() error) (cost, allocs float64, err error) {
	if err := send(); err != nil { // fills the socket, which has been empty since its last turn
		return 0, 0, err
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu := harness.ProcessCPU()
	n, err := harness.Repeat(waitingBatch, *waitingCost, send)
	cpu = harness.ProcessCPU() - cpu
	runtime.ReadMemStats(&after)
	return float64(cpu) / float64(n), float64(after.Mallocs-before.Mallocs) / float64(n), err
}
