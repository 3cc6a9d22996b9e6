// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package harness

import (
	"errors"
	"math"
	"os"
	"sync"
	"time"
)

// burstPatience is how long a read waits for what is on loopback when the send
// returns, or about to be.
const burstPatience = 20 * time.Millisecond

var errNothing = errors.New("a read returned no datagram and no error")

// A Burst compares ways of reading in one thread: it is sent, then read, and
// only the reading is on the clock. So a reader always finds the same queue,
// nothing is dropped, and nobody is woken.
type Burst struct {
	Mail *Mailbag     // holds all of it
	Send func() error // sends all of it

	// Read puts what has arrived into the mailbag from buffer i on, as much of it
	// as one call takes, and returns how many datagrams that were. At the read
	// deadline it returns os.ErrDeadlineExceeded. So does a reader without one
	// that finds nothing.
	Read            func(i int) (int, error)
	SetReadDeadline func(time.Time) error
}

// BurstTimes add up what bursts took. The processor's are the calling thread's,
// which the caller has locked.
type BurstTimes struct{ SendCPU, Read, ReadCPU time.Duration }

// clockCost is what looking at the thread's clock takes of its time: a system
// call, which weighs on a burst of one.
var clockCost = sync.OnceValue(func() time.Duration {
	cost := time.Duration(math.MaxInt64)
	for range 1000 {
		begin := ThreadCPU()
		cost = min(cost, ThreadCPU()-begin)
	}
	return cost
})

// Run sends and reads once. It returns how many datagrams are in the mailbag:
// what did not come is lost.
func (b *Burst) Run(t *BurstTimes) (n int, err error) {
	if err := b.SetReadDeadline(time.Now().Add(burstPatience)); err != nil {
		return 0, err
	}
	clock := clockCost()
	cpu0 := ThreadCPU()
	if err := b.Send(); err != nil {
		return 0, err
	}
	cpu1, begin := ThreadCPU(), time.Now()
	n, err = b.readAll()
	t.Read += time.Since(begin)
	cpu2 := ThreadCPU()
	t.SendCPU += max(0, cpu1-cpu0-clock)
	t.ReadCPU += max(0, cpu2-cpu1-clock)
	return n, err
}

func (b *Burst) readAll() (n int, err error) {
	const tries = 3 // the process may have been stopped until after the deadline
	for failed := 0; n < len(b.Mail.Buffers); {
		k, err := b.Read(n)
		n += k
		if err == nil && k > 0 {
			failed = 0
			continue
		}
		if err == nil {
			return n, errNothing
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if failed++; failed == tries {
			return n, nil
		}
		if err := b.SetReadDeadline(time.Now().Add(burstPatience)); err != nil {
			return n, err
		}
	}
	return n, nil
}
