// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/batchconn/batchconn/bench/internal/way"
	"github.com/batchconn/batchconn/internal/harness"
)

const (
	checkRounds = 3

	// forcedBuffer holds every batch there is, where the system gives so much.
	forcedBuffer = 64 << 20

	// checkPatience is how long a datagram may take on loopback.
	checkPatience = 5 * time.Second
)

// checkArrival has a way send a batch of the work, once and then again, and
// looks for each datagram: complete, once, at the receiver it was sent to. A
// batch that would not fit in a receiver is made smaller. It returns how many
// datagrams were sent at once, and how many came in another order than they
// were sent.
func checkArrival(w way.Way, work Work, rs []receiver) (atOnce, reordered int, err error) {
	l := work.load(rs)
	l.Count = fitting(work, rs)
	s, err := w.Open(&l)
	if err != nil {
		return l.Count, 0, err
	}
	defer s.Close()
	b := way.NewBatch(l, w.Roomy)
	send := s.Sender(b)
	drain(rs, l.Size)
	for range checkRounds {
		stampAll(b)
		n, err := send(0)
		if err == nil && s.Flush != nil {
			err = s.Flush()
		}
		if err == nil && n != l.Count {
			err = fmt.Errorf("%d of %d datagrams were sent", n, l.Count)
		}
		if err != nil {
			return l.Count, reordered, err
		}
		moved, err := collect(b, rs)
		reordered += moved
		if err != nil {
			return l.Count, reordered, err
		}
	}
	return l.Count, reordered, nil
}

// fitting is how many datagrams of a batch the receivers hold, whose buffers it
// makes as large as it may.
func fitting(w Work, rs []receiver) int {
	// What the kernel counts for one: its bytes, rounded up to a power of two at
	// worst, and what it needs to keep them.
	each := 2*w.Size + 1280
	count := w.Batch
	for _, r := range rs {
		count = min(count, r.setBuffer(forcedBuffer)/each*len(rs))
	}
	return max(count/w.Burst*w.Burst, min(count, w.Burst), 1)
}

// stampAll writes what no other datagram has into each.
func stampAll(b *way.Batch) {
	seed := rand.Uint64()
	for i, p := range b.Datagrams {
		stamp{seed, 0, uint32(i)}.fill(p)
	}
}

// collect reads what was sent to each receiver.
func collect(b *way.Batch, rs []receiver) (reordered int, err error) {
	m := newMailbag(b.Size)
	for _, r := range rs {
		var want [][]byte
		for i, p := range b.Datagrams {
			if b.Destination(i) == r.Addr() {
				want = append(want, p)
			}
		}
		moved, err := collectFrom(r, m, want)
		reordered += moved
		if err != nil {
			return reordered, err
		}
	}
	return reordered, nil
}

// collectFrom reads the datagrams it wants, and what else there is.
func collectFrom(r receiver, m *harness.Mailbag, want [][]byte) (reordered int, err error) {
	left := make([]int, len(want)) // those that did not come yet, in order
	for i := range left {
		left[i] = i
	}
	for limit := time.Now().Add(checkPatience); ; {
		n, err := r.Read(m)
		if err != nil {
			return reordered, err
		}
		for i := range n {
			at := 0
			for at < len(left) && !bytes.Equal(m.Datagram(i), want[left[at]]) {
				at++
			}
			if at == len(left) {
				return reordered, fmt.Errorf("a datagram of %d bytes that was not sent so, or came before", m.Lengths[i])
			}
			if at > 0 {
				reordered++
			}
			left = append(left[:at], left[at+1:]...)
		}
		switch {
		case n > 0:
		case len(left) == 0:
			return reordered, nil
		case time.Now().After(limit):
			return reordered, fmt.Errorf("%d of %d datagrams did not arrive", len(left), len(want))
		default:
			time.Sleep(time.Millisecond)
		}
	}
}

// drain empties the receivers.
func drain(rs []receiver, size int) {
	m := newMailbag(size)
	for _, r := range rs {
		for n := 1; n > 0; n, _ = r.Read(m) {
		}
	}
}
