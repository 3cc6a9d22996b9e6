// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"cmp"
	"context"
	"math"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Waiting.
//
// Working never waits. Both directions have ends, which end calls, and a line:
// a caller that met a full or an empty socket stands in it, for one place. Only
// the caller that has the place is parked, see place.go. Whenever it is woken
// it tries again, and it leaves once something left, came or failed, to the end
// of the line if it has more. So those that wait take turns, newcomers that may
// wait queue behind them, and callers that may not wait never meet the line.

// epoch makes points in time out of the monotonic clock.
var epoch = time.Now()

func sinceEpoch(t time.Time) int64 { return int64(t.Sub(epoch)) }

// The ends of a direction are what ends its calls, waiting or not: Close and
// the user's deadline. Contexts, which end one call each, are looked at with
// them.
type ends struct {
	raw      syscall.RawConn // nil if the Conn is not from New
	closed   atomic.Bool
	deadline atomic.Int64 // the user's, since epoch; 0 for none
}

// open says why no call can go on: no socket, closed, or ctx is done.
func (e *ends) open(ctx context.Context) error {
	if e.raw == nil {
		return syscall.EINVAL
	}
	if e.closed.Load() {
		return net.ErrClosed
	}
	if ctx != nil {
		return ctx.Err()
	}
	return nil
}

// check is open and the user's deadline: what is looked at before each call to
// the kernel.
func (e *ends) check(ctx context.Context) error {
	if err := e.open(ctx); err != nil {
		return err
	}
	if e.expired() {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// expired reports whether the user's deadline has passed.
func (e *ends) expired() bool {
	at := e.deadline.Load()
	return at != 0 && int64(time.Since(epoch)) >= at // which asks for one clock; time.Now asks for two
}

// checkWaited is check after waiting. A context of the user's may have said
// that it is done before it can say why.
func (e *ends) checkWaited(ctx context.Context) error {
	if ctx != nil {
		ctx = reasoned{ctx}
	}
	return e.check(ctx)
}

// A reasoned is a context that always has a reason when it is done, without
// which context.AfterFunc panics.
type reasoned struct{ context.Context }

// Err asks again once Done is closed: a context may be done just after it said
// that it is not.
func (c reasoned) Err() error {
	if err := c.Context.Err(); err != nil {
		return err
	}
	select {
	case <-c.Done():
	default:
		return nil
	}
	if err := c.Context.Err(); err != nil {
		return err
	}
	return context.Canceled
}

// callOnce calls f, as RawConn.Read and Write do, but once, and neither waits
// nor locks. It returns what f returned.
func callOnce(raw syscall.RawConn, f func(fd uintptr) bool) (done bool, err error) {
	o := onces.Get().(*once)
	o.f, o.done = f, false
	err = raw.Control(o.call)
	done, o.f = o.done, nil
	onces.Put(o)
	return done, err
}

// A once is pooled, so that no call makes a closure.
type once struct {
	f    func(fd uintptr) bool
	done bool
	call func(fd uintptr)
}

var onces = sync.Pool{New: func() any {
	o := new(once)
	o.call = func(fd uintptr) { o.done = o.f(fd) }
	return o
}}

// A line is callers that wait for one place, in the order of arrival.
type line struct {
	mu      sync.Mutex
	taken   bool      // a caller has the place
	waiters []*waiter // the others
}

// A waiter is a caller that sleeps until it is woken.
type waiter struct {
	woken chan bool // has room for the one wake that each waiter gets; true: all is done
}

var waiters = sync.Pool{New: func() any { return &waiter{make(chan bool, 1)} }}

// enter returns with the place, or with what ended the wait for it; or all is
// done, and it has no place. Only the context wakes a caller in line: the
// deadline and Close wake the one that has the place, and so all in line, one
// after the other. A deadline that moves costs nobody its place.
func (l *line) enter(ctx context.Context, e *ends) (done bool, err error) {
	l.mu.Lock()
	if !l.taken {
		l.taken = true
		l.mu.Unlock()
		return false, nil
	}
	w := waiters.Get().(*waiter)
	defer waiters.Put(w)
	l.waiters = append(l.waiters, w)
	l.mu.Unlock()
	var cancelled <-chan struct{}
	if ctx != nil {
		cancelled = ctx.Done()
	}
	select {
	case done := <-w.woken:
		return done, nil
	case <-cancelled:
		l.giveUp(w)
		return false, e.checkWaited(ctx)
	}
}

// giveUp takes w out of the line. If its turn came meanwhile, it is the next's.
func (l *line) giveUp(w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.waiters, w); i >= 0 {
		l.waiters = slices.Delete(l.waiters, i, i+1)
		return
	}
	if done := <-w.woken; !done {
		l.leaveLocked(false)
	}
}

// leave gives the place to the next in line, or, if all is done, wakes them
// all.
func (l *line) leave(done bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leaveLocked(done)
}

func (l *line) leaveLocked(done bool) {
	for i, w := range l.waiters {
		w.woken <- done
		if !done {
			l.waiters = slices.Delete(l.waiters, i, i+1)
			return
		}
	}
	clear(l.waiters)
	l.waiters = l.waiters[:0]
	l.taken = false
}

// deadlineSinceEpoch goes by the time left until t, as the runtime does: a t
// without a monotonic reading means that much from now, whatever the wall clock
// does later. It is 0 only for the zero t.
func deadlineSinceEpoch(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	if t != t.Round(0) { // it has a monotonic reading, as epoch has
		return cmp.Or(sinceEpoch(t), -1)
	}
	moment := time.Now() // one: between two the deadline would move
	now, left := sinceEpoch(moment), int64(t.Sub(moment))
	switch {
	case left > math.MaxInt64-now:
		return math.MaxInt64
	case now+left == 0:
		return -1
	}
	return now + left
}
