// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package main

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/net/ipv4"
)

const (
	// receiveBuffer is what each receiver asks of the system, which gives as
	// much as it allows (Linux: net.core.rmem_max).
	receiveBuffer = 16 << 20

	// readBatch is how many datagrams a receiver takes in one call, or fewer if
	// they are large.
	readBatch      = 64
	readBatchBytes = 1 << 20

	// nap is how long a receiver that found nothing waits before it looks again,
	// times the number of receivers, each of which then gets as much less.
	nap    = 50 * time.Microsecond
	maxNap = 5 * time.Millisecond

	// quiet is how long a receiver waits in vain for the rest of a run. The
	// kernel has delivered on loopback when the send returns, or is about to.
	quiet = 20 * time.Millisecond

	// windowSize is how many sequence numbers back a duplicate is told from a
	// late datagram.
	windowSize = 1 << 16
)

// A tally counts what arrived.
type tally struct {
	arrived    uint64 // intact, and for the first time
	bytes      uint64 // of those
	reordered  uint64 // of those, after one that was sent later
	damaged    uint64 // content, length, or receiver is wrong
	duplicated uint64 // intact, but here before
}

func (t *tally) add(u tally) {
	t.arrived += u.arrived
	t.bytes += u.bytes
	t.reordered += u.reordered
	t.damaged += u.damaged
	t.duplicated += u.duplicated
}

// A flow is what one sender sends to one receiver in one run.
type flow struct {
	arrived uint64
	first   uint64 // lowest sequence seen
	next    uint64 // one more than the highest
	seen    [windowSize / 64]uint64
}

// note counts an intact datagram in t.
func (f *flow) note(sequence uint64, bytes int, t *tally) {
	late := sequence < f.next
	if late && (f.next-sequence > windowSize || f.has(sequence)) {
		t.duplicated++
		return
	}
	if late {
		t.reordered++
	} else {
		f.advance(sequence)
	}
	if f.arrived == 0 || sequence < f.first {
		f.first = sequence
	}
	f.seen[sequence/64%uint64(len(f.seen))] |= 1 << (sequence % 64)
	f.arrived++
	t.arrived++
	t.bytes += uint64(bytes)
}

func (f *flow) has(sequence uint64) bool {
	return f.seen[sequence/64%uint64(len(f.seen))]&(1<<(sequence%64)) != 0
}

// advance makes sequence the highest, and forgets what leaves the window.
func (f *flow) advance(sequence uint64) {
	if sequence-f.next >= windowSize {
		clear(f.seen[:])
	} else {
		for s := f.next; s <= sequence; s++ {
			f.seen[s/64%uint64(len(f.seen))] &^= 1 << (s % 64)
		}
	}
	f.next = sequence + 1
}

// atLeast counts what arrived with this sequence number or a higher one, in
// the window.
func (f *flow) atLeast(sequence uint64) (n uint64) {
	if f.next > windowSize {
		sequence = max(sequence, f.next-windowSize)
	}
	for ; sequence < f.next; sequence++ {
		if f.has(sequence) {
			n++
		}
	}
	return n
}

// lost is how many are missing between the first and the last that arrived.
func (f *flow) lost() uint64 { return f.next - f.first - f.arrived }

// readCount is how many datagrams of up to size bytes are read in one call.
func readCount(size int) int { return min(readBatch, 1+readBatchBytes/size) }

// messages makes what to read datagrams of up to size bytes into.
func messages(size int) []ipv4.Message {
	n := readCount(size)
	ms := make([]ipv4.Message, n)
	buf := make([]byte, n*size)
	for i := range ms {
		ms[i].Buffers = [][]byte{buf[i*size:][:size:size]}
	}
	return ms
}

// listenUDP opens a socket with a large receive buffer.
func listenUDP(at *net.UDPAddr) (*net.UDPConn, error) {
	u, err := net.ListenUDP("udp", at)
	if err != nil {
		return nil, err
	}
	for size := receiveBuffer; size >= 64<<10 && u.SetReadBuffer(size) != nil; size /= 2 {
	}
	return u, nil
}

// A receiver checks what arrives at one socket on loopback.
type receiver struct {
	inlet *inlet
	addr  netip.AddrPort
	index int
	size  int // of every datagram
	nap   time.Duration
	ms    []ipv4.Message

	// Of the current run:
	run      uint64
	flows    []flow // by sender
	tally    tally
	expected atomic.Int64 // how many were sent; -1 while they are
	done     chan error
	thread   thread // that reads
}

func newReceiver(index int, opt *options) (*receiver, error) {
	in, err := openInlet(&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, fmt.Errorf("receiver %d: %w", index, err)
	}
	return &receiver{
		inlet: in,
		addr:  in.LocalAddr().(*net.UDPAddr).AddrPort(),
		index: index,
		size:  opt.size,
		nap:   min(time.Duration(opt.receivers)*nap, maxNap),
		ms:    messages(opt.size + 1), // one byte more shows a longer one
		flows: make([]flow, opt.senders),
	}, nil
}

// start begins to receive a run.
func (r *receiver) start(run uint64) {
	r.run = run
	clear(r.flows)
	r.tally = tally{}
	r.expected.Store(-1)
	r.done = make(chan error, 1)
	started := make(chan struct{})
	go func() {
		runtime.LockOSThread() // its CPU time is not the senders'
		defer runtime.UnlockOSThread()
		r.thread = thisThread()
		close(started)
		r.done <- r.read()
	}()
	<-started
}

// finish returns when all that there is of a run was read. sent is how many
// each sender counted.
func (r *receiver) finish(sent []uint64) (t tally, uncounted uint64, err error) {
	expected := uint64(0)
	for _, n := range sent {
		expected += n
	}
	r.expected.Store(int64(expected))
	err = <-r.done
	for i := range r.flows {
		uncounted += r.flows[i].atLeast(sent[i])
	}
	r.tally.arrived -= uncounted
	return r.tally, uncounted, err
}

// read checks what arrives until the run is over and nothing is left.
func (r *receiver) read() error {
	for empty := time.Duration(0); ; {
		expected := r.expected.Load() // before the read: nothing is sent after it
		n, err := r.inlet.read(r.ms)
		if err != nil {
			return fmt.Errorf("receiver %d: %w", r.index, err)
		}
		for i := range r.ms[:n] {
			r.take(r.ms[i].Buffers[0][:r.ms[i].N])
		}
		switch {
		case n > 0:
			empty = 0
			continue
		case expected < 0:
			empty = 0
		case int64(r.tally.arrived) >= expected || empty >= quiet:
			return nil
		default:
			empty += r.nap
		}
		pause(r.nap)
	}
}

// take checks one datagram.
func (r *receiver) take(p []byte) {
	h, intact := parse(p)
	if !intact || h.run != r.run || len(p) != r.size || int(h.receiver) != r.index || int(h.sender) >= len(r.flows) {
		r.tally.damaged++
		return
	}
	r.flows[h.sender].note(h.sequence, len(p), &r.tally)
}
