// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Waiting for room.
//
// Sends that find the socket full stand in the line of deadline.go. The send
// that has the place parks on the socket itself, with its next try as the
// function that RawConn.Write calls again whenever there may be room.
//
// The kernel wakes it once half of the buffer is free (sock_writeable,
// include/net/sock.h). That comes after every full buffer, since what fills it
// leaves, and callers of this package leave room alone that is another's. Where
// the kernel answers that there is no room and the buffer is not full, or net's
// own writes may take what there is, nothing is owed, and the send tries again
// after a pause. Against others that hold the socket (File, other processes)
// and keep the buffer more than half full nothing is done, as in net.

// A roomRule says how to wait for room.
type roomRule struct {
	// ready reports, without waiting, whether there is room.
	ready func(fd uintptr) (bool, error)

	// A caller that cannot be sure to be woken tries again after this pause.
	pause time.Duration

	// A sender that has had the place in vain for this long gets what comes next:
	// callers that may not wait leave it alone meanwhile.
	starvedAfter time.Duration

	// A duplicate is closed when it was not used for this long: each packet that
	// arrives wakes it too. But to make a new one for each wait costs more than
	// the wait.
	dupExpiry time.Duration
}

// A roomQueue is where callers wait for room.
type roomQueue struct {
	roomPlace                           // of the senders
	watch     atomic.Pointer[roomPlace] // of callers that take nothing, made by the first: most Conns have none

	// Read by every call.
	takers atomic.Int32 // senders in turn, parked or not
	since  atomic.Int64 // epoch: when the sender that has the place got it; 0 for none
	looked atomic.Int64 // epoch: when it was last made to look by one that may not wait

	turns     atomic.Uint64 // of senders
	deadlines sync.Mutex    // held while the user's is set, and watch is
}

func (q *roomQueue) init(c *net.UDPConn, raw syscall.RawConn, rule *roomRule) {
	q.conn = c
	q.roomPlace.init(raw, rule)
}

// watcher is the place of callers that take nothing.
func (q *roomQueue) watcher() *roomPlace {
	if p := q.watch.Load(); p != nil {
		return p
	}
	q.deadlines.Lock()
	defer q.deadlines.Unlock()
	p := q.watch.Load()
	if p == nil {
		p = new(roomPlace)
		p.init(q.ends.raw, q.rule)
		p.ends.deadline.Store(q.ends.deadline.Load())
		p.ends.closed.Store(q.ends.closed.Load()) // or else close finds it
		q.watch.Store(p)
	}
	return p
}

// mustWait reports whether a caller has to leave what there is to others. A
// caller that may wait queues behind those that wait already. No caller takes
// what is reserved for one that starved; but it has that one look, since the
// kernel wakes it for half of the buffer only.
func (q *roomQueue) mustWait(mayWait bool) bool {
	if q.takers.Load() == 0 || !mayWait && !q.starved() {
		return false
	}
	if !mayWait {
		q.look()
	}
	return true
}

// look has the sender that is parked look for room, not more often than it
// starves.
func (q *roomQueue) look() {
	last, now := q.looked.Load(), sinceEpoch(time.Now())
	if now-last >= int64(q.rule.starvedAfter) && q.looked.CompareAndSwap(last, now) {
		q.kick()
	}
}

// starved reports whether a sender has waited for too long.
func (q *roomQueue) starved() bool {
	since := q.since.Load()
	return since != 0 && sinceEpoch(time.Now())-since >= int64(q.rule.starvedAfter)
}

// inTurn waits in line, and with the place until c is done. It returns what
// ended the waiting otherwise.
func (q *roomQueue) inTurn(ctx context.Context, c parkedCall) error {
	q.takers.Add(1)
	defer q.takers.Add(-1)
	if _, err := q.line.enter(ctx, &q.ends); err != nil {
		return err
	}
	defer q.leaveTurn()
	q.turns.Add(1)
	q.since.Store(sinceEpoch(time.Now()))
	return q.park(ctx, c)
}

func (q *roomQueue) leaveTurn() {
	q.since.Store(0)
	q.line.leave(false)
}

// await waits until the socket is ready, and that not for one that starved, and
// takes nothing. All callers wait for the same, so one is parked for all of
// them.
func (q *roomQueue) await(ctx context.Context) error {
	if err := q.ends.check(ctx); err != nil {
		return err
	}
	p := q.watcher()
	done, err := p.line.enter(ctx, &p.ends)
	if err != nil || done {
		return err
	}
	c := &watchCall{q: q, p: p}
	if err = p.park(ctx, c); err == nil {
		err = c.err
	}
	p.line.leave(err == nil)
	return err
}

// A watchCall waits for room and leaves it there.
type watchCall struct {
	q   *roomQueue
	p   *roomPlace
	err error
}

func (c *watchCall) wait() error { return c.p.wait(c.look) }

func (c *watchCall) look(fd uintptr) (done bool) {
	var ready bool
	ready, c.err = c.p.rule.ready(fd)
	if c.err != nil || !ready {
		return c.err != nil
	}
	if c.q.starved() {
		c.p.retry()
		return false
	}
	return true
}

// setDeadline sets the user's deadline where it is held: on the socket, which
// set does, on the duplicate, and in our records.
func (q *roomQueue) setDeadline(t time.Time, set func(time.Time) error) error {
	q.deadlines.Lock()
	defer q.deadlines.Unlock()
	if err := q.roomPlace.setDeadline(t, set); err != nil {
		return err
	}
	if p := q.watch.Load(); p != nil {
		return p.setDeadline(t, func(time.Time) error { return nil })
	}
	return nil
}

// close wakes all that wait, for good.
func (q *roomQueue) close() {
	q.roomPlace.close()
	q.deadlines.Lock()
	p := q.watch.Load()
	q.deadlines.Unlock()
	if p != nil {
		p.close()
	}
}
