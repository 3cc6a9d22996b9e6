// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// runLength is how many datagrams run i has.
func runLength(i int) int { return 1 + i*5%13 }

// TestControlDropped: what the kernel counts is what a reader misses that
// counts sequence numbers, in datagrams. A run that would have come coalesced
// is one.
func TestControlDropped(t *testing.T) {
	for _, test := range []struct {
		name string
		gso  GSOMode
		gro  GROMode
	}{
		{"sent one by one", GSOOff, GROOff},
		{"sent one by one, coalescing when it pays", GSOOff, GROAuto},
		{"sent one by one, coalescing", GSOOff, GROOn},
		{"segmented", GSOAuto, GROOff}, // the kernel cuts runs before it queues them (udp_queue_rcv_skb)
		{"segmented, coalescing", GSOAuto, GROOn},
	} {
		for _, p := range paths[:4] {
			t.Run(test.name+"/"+p.name, func(t *testing.T) {
				s := newConn(t, listen(t, p.network, p.from), &Config{GSO: test.gso})
				r := newConn(t, listen(t, p.receives, p.host), &Config{GRO: test.gro})
				if st := r.Stats(); test.gro == GROOn && !st.GRO {
					t.Skip(st.GROReason)
				}
				to := netip.AddrPortFrom(p.to, r.port())
				l := &lossy{t: t, s: s, r: r, to: to, runsDropWhole: test.gso == GSOAuto && test.gro == GROOn}
				l.test()
			})
		}
	}
}

// A lossy sends runs of numbered datagrams to a socket with a small buffer.
type lossy struct {
	t             *testing.T
	s, r          *Conn
	to            netip.AddrPort
	runsDropWhole bool // and count as one

	lengths      []int  // of the runs that were sent
	run, in      uint32 // the datagram to come: its run, and which of it
	missed       uint32 // datagrams
	missedRuns   uint32 // whole ones
	partlyMissed uint32 // runs
	read         uint32 // datagrams
}

func (l *lossy) test() {
	if err := l.r.ReceiveControl(ControlDropped); err != nil {
		l.t.Fatal(err)
	}
	l.r.recv.control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<10) })
	for range 4 {
		for i := range 30 {
			l.send(runLength(i))
		}
		// A busy kernel may deliver after the send has returned.
		await(l.t, "a datagram to arrive after which none is missing", func() bool {
			l.receive()
			l.send(1) // there is room
			l.receive()
			return int(l.run) == len(l.lengths)
		})
	}
	l.t.Logf("%d runs: %d datagrams read and %d missed, %d whole runs and %d others", len(l.lengths), l.read, l.missed, l.missedRuns, l.partlyMissed)
	if l.missedRuns == 0 || l.read == 0 || l.runsDropWhole && l.partlyMissed > 0 {
		l.t.Error("no test")
	}
	if got := l.r.Stats().Dropped; got != uint64(l.counted()) {
		l.t.Errorf("Stats say %d dropped, want %d", got, l.counted())
	}
}

// counted is what the kernel should have counted of what was missed.
func (l *lossy) counted() uint32 {
	if l.runsDropWhole {
		return l.missedRuns
	}
	return l.missed
}

// send sends a run of n datagrams.
func (l *lossy) send(n int) {
	l.t.Helper()
	var msgs []OutputMessage
	for k := range n {
		p := binary.BigEndian.AppendUint32(make([]byte, 0, 100), uint32(len(l.lengths)))
		p = binary.BigEndian.AppendUint32(p, uint32(k))
		msgs = append(msgs, OutputMessage{Addr: l.to, Vectors: [][]byte{p[:100]}})
	}
	if err := sendAll(l.s, nil, msgs); err != nil {
		l.t.Fatal(err)
	}
	l.lengths = append(l.lengths, n)
}

// receive reads what there is.
func (l *lossy) receive() {
	l.t.Helper()
	msgs := make([]InputMessage, 4)
	for i := range msgs {
		msgs[i] = InputMessage{Vectors: [][]byte{make([]byte, 100)}, Control: make([]byte, 64)}
	}
	for {
		n, err := l.r.ReceiveMessages(nil, msgs, MsgDontWait)
		if errors.Is(err, ErrWouldBlock) {
			return
		}
		if err != nil {
			l.t.Fatal(err)
		}
		for i := range msgs[:n] {
			l.check(&msgs[i])
		}
	}
}

// check compares what a datagram says with what is missing before it.
func (l *lossy) check(msg *InputMessage) {
	l.t.Helper()
	p := msg.Vectors[0]
	l.miss(binary.BigEndian.Uint32(p), binary.BigEndian.Uint32(p[4:]))
	var m ControlMessage
	err := m.Parse(msg.Control[:msg.ControlReceived])
	if err != nil || m.Dropped != l.counted() || (m.Flags == ControlDropped) != (l.missed > 0) {
		l.t.Errorf("datagram %d of run %d: %+v, %v; dropped are %d", p[7], p[3], m, err, l.counted())
	}
}

// miss counts what is missing before a datagram that was read.
func (l *lossy) miss(run, in uint32) {
	for ; l.run < run; l.run, l.in = l.run+1, 0 {
		left := uint32(l.lengths[l.run]) - l.in
		l.missed += left
		if l.in == 0 {
			l.missedRuns++
		} else if left > 0 {
			l.partlyMissed++
		}
	}
	if in > l.in {
		l.partlyMissed++
	}
	l.missed += in - l.in
	l.read++
	if l.in = in + 1; int(l.in) == l.lengths[run] {
		l.run, l.in = run+1, 0
	}
}
