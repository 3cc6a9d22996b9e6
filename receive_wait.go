// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Waiting for data.
//
// Reads that find nothing line up at a queue with one place. The read that has
// the place parks on the socket itself, in RawConn.Read, so that an arrival
// wakes one descriptor, and the user's deadline and Close end it as they do in
// net. Whatever else is to wake it kicks it: a mark, and a read deadline in the
// past on the socket. Only the kicked read takes that deadline back, and until
// it has, what the user sets is only recorded.

// A readQueue is where the reads of a Conn wait, and what ends their waiting.
type readQueue struct {
	conn *net.UDPConn
	raw  syscall.RawConn // nil if the Conn is not from New

	lineMu sync.Mutex
	line   []*waiter // those that wait for the place, in order of arrival
	taken  bool      // a read has the place

	state    atomic.Int32 // of the read that has the place: unparked, parked or kicked
	closed   atomic.Bool
	deadline atomic.Int64 // the user's, since epoch; 0 for none

	mu sync.Mutex // for kicks, and for deadlines that reach the socket
}

const (
	unparked = iota
	parked
	kicked
)

func (q *readQueue) init(c *net.UDPConn, raw syscall.RawConn) { q.conn, q.raw = c, raw }

// open says why no read can go on: no socket, closed, or ctx is done.
func (q *readQueue) open(ctx context.Context) error {
	if q.raw == nil {
		return syscall.EINVAL
	}
	if q.closed.Load() {
		return net.ErrClosed
	}
	if ctx != nil {
		return ctx.Err()
	}
	return nil
}

// check is open and the user's deadline.
func (q *readQueue) check(ctx context.Context) error {
	if err := q.open(ctx); err != nil {
		return err
	}
	if q.expired() {
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (q *readQueue) expired() bool {
	at := q.deadline.Load()
	return at != 0 && sinceEpoch(time.Now()) >= at
}

// enter returns with the place, in the order of arrival, or with what ended the
// wait for it. Only the context ends it: the deadline and Close wake the read
// that has the place, and so all in line, one after the other.
func (q *readQueue) enter(ctx context.Context) error {
	q.lineMu.Lock()
	if !q.taken {
		q.taken = true
		q.lineMu.Unlock()
		return nil
	}
	w := waiters.Get().(*waiter)
	defer waiters.Put(w)
	q.line = append(q.line, w)
	q.lineMu.Unlock()
	if ctx == nil || ctx.Done() == nil {
		<-w.woken
		return nil
	}
	select {
	case <-w.woken:
		return nil
	case <-ctx.Done():
		q.giveUp(w)
		if err := q.check(ctx); err != nil {
			return err
		}
		return context.Canceled // of a context that is done before it says why
	}
}

// giveUp takes w out of the line. If its turn came meanwhile, it is the next's.
func (q *readQueue) giveUp(w *waiter) {
	q.lineMu.Lock()
	if i := slices.Index(q.line, w); i >= 0 {
		q.line = slices.Delete(q.line, i, i+1)
		q.lineMu.Unlock()
		return
	}
	q.lineMu.Unlock()
	<-w.woken
	q.leave()
}

// leave gives the place to the next in line.
func (q *readQueue) leave() {
	q.lineMu.Lock()
	defer q.lineMu.Unlock()
	if len(q.line) == 0 {
		q.taken, q.line = false, nil
		return
	}
	q.line[0].woken <- false // it has room for that
	q.line = slices.Delete(q.line, 0, 1)
}

// park has o wait, with the place, until that ends by anything but the deadline
// of a kick.
func (q *readQueue) park(ctx context.Context, o *reading) error {
	for {
		err := q.parkOnce(ctx, o)
		q.unpark()
		if err == nil {
			return nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return cause(err)
		}
		if err := q.check(ctx); err != nil {
			return err
		}
		q.awaitOther()
	}
}

// awaitOther returns when a deadline that is another's is taken back: that of a
// kick, or of a flush, which holds mu.
func (q *readQueue) awaitOther() {
	q.mu.Lock()
	defer q.mu.Unlock()
}

func (q *readQueue) parkOnce(ctx context.Context, o *reading) error {
	q.state.Store(parked) // before the look: what comes after it is told by a kick
	if ctx == nil || ctx.Done() == nil {
		return o.wait()
	}
	stop := context.AfterFunc(saidWhy{ctx}, q.kick)
	defer stop() // a kick too late wakes another in vain, and does nothing else
	return o.wait()
}

// unpark ends parking, and takes back a kick.
func (q *readQueue) unpark() {
	if q.state.CompareAndSwap(parked, unparked) {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.state.Store(unparked)
	q.conn.SetReadDeadline(q.until()) // fails only on a closed socket
}

// until is the user's deadline.
func (q *readQueue) until() time.Time {
	at := q.deadline.Load()
	if at == 0 {
		return time.Time{}
	}
	return epoch.Add(time.Duration(at))
}

// kick has the read that is parked look again, or looks why it should not. If
// none is, it does nothing: the next looks before it parks.
func (q *readQueue) kick() {
	if q.state.Load() != parked {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.state.CompareAndSwap(parked, kicked) {
		q.conn.SetReadDeadline(aLongTimeAgo)
	}
}

var aLongTimeAgo = time.Unix(1, 0)

// setDeadline sets the user's deadline: in our record, and on the socket by
// set, unless a kicked read is going to do so.
func (q *readQueue) setDeadline(t time.Time, set func(time.Time) error) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.state.Load() == kicked {
		if q.closed.Load() {
			return set(t) // for its error
		}
	} else if err := set(t); err != nil {
		return err
	}
	q.deadline.Store(deadlineSinceEpoch(t))
	return nil
}

// isKick reports whether err, of a read that is not in line, is the work of a
// kick, or of a flush. That read tries again.
func (q *readQueue) isKick(err error) bool {
	if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || q.expired() {
		return false
	}
	runtime.Gosched() // to let the kicked read go first
	return true
}

// flush ends all reads that are on the socket, for them to come again, and
// returns when done says so.
func (q *readQueue) flush(done func() bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if done() {
		return
	}
	q.conn.SetReadDeadline(aLongTimeAgo)
	for !done() {
		runtime.Gosched()
	}
	if q.state.Load() != kicked {
		q.conn.SetReadDeadline(q.until())
	}
}

func (q *readQueue) close() { q.closed.Store(true) }
