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
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Waiting for data.
//
// Reads that find nothing stand in the line of deadline.go. The read that has
// the place parks on the socket itself, in RawConn.Read, so that an arrival
// wakes one descriptor, and the user's deadline and Close end it as they do in
// net. Whatever else is to wake it kicks it: a mark, and a read deadline in the
// past on the socket. Only the kicked read takes that deadline back, and until
// it has, what the user sets is only recorded.

// A readQueue is where the reads of a Conn wait, and what ends their waiting.
type readQueue struct {
	ends  ends
	conn  *net.UDPConn
	line  line
	state atomic.Int32 // of the read that has the place: unparked, parked or kicked
	mu    sync.Mutex   // for kicks, and for deadlines that reach the socket
}

const (
	unparked = iota
	parked
	kicked
)

func (q *readQueue) init(c *net.UDPConn, raw syscall.RawConn) { q.conn, q.ends.raw = c, raw }

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
		if err := q.ends.check(ctx); err != nil {
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
	at := q.ends.deadline.Load()
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
		if q.ends.closed.Load() {
			return set(t) // for its error
		}
	} else if err := set(t); err != nil {
		return err
	}
	q.ends.deadline.Store(deadlineSinceEpoch(t))
	return nil
}

// isKick reports whether err, of a read that is not in line, is the work of a
// kick, or of a flush. That read tries again.
func (q *readQueue) isKick(err error) bool {
	if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || q.ends.expired() {
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

func (q *readQueue) close() { q.ends.closed.Store(true) }
