// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"context"
	"errors"
	"math"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Waiting for room.
//
// Sending never waits and waiting never sends. A sender that met a full socket
// lines up at a gate with one place; who holds the gate waits on a parker, tries
// to send, and leaves once something left or failed, to the end of the line if
// it has more. So those who wait take turns, newcomers that may wait queue
// behind them, and senders that may not wait never meet the gate. WaitWritable
// waits there too, but takes no room, so that nobody queues because of it.
//
// The parker is apart from the user's descriptor, so that its deadline, with
// which we wake whom we want, fails nobody else's writes.

const (
	// A waiting sender also tries again after a pause. The kernel calls a
	// socket writable only when half of its buffer is free (sock_writeable,
	// include/net/sock.h), and newcomers can keep it from ever being that.
	firstPause = time.Millisecond
	lastPause  = 20 * time.Millisecond

	// Senders that may not wait could take all the room there is. Who waited so
	// long with the gate gets the next.
	starvedAfter = 30 * time.Millisecond
)

// epoch makes points in time out of the monotonic clock.
var epoch = time.Now()

func sinceEpoch(t time.Time) int64 { return int64(t.Sub(epoch)) }

// A parker waits for room on the socket.
type parker interface {
	// park returns nil once the socket has room, os.ErrDeadlineExceeded at the
	// deadline and os.ErrClosed after close. If it is blind it does not look for
	// room. One goroutine at a time parks.
	park(blind bool) error
	setDeadline(t time.Time) // wakes park when t has passed; any goroutine
	close()                  // wakes park, and returns once it is off the socket
}

// room is where the senders of a Conn wait.
type room struct {
	raw  syscall.RawConn
	gate chan struct{} // holds a token while somebody holds the gate

	// Written under mu, read without it on the way of every send.
	closed   atomic.Bool
	waiting  atomic.Int32 // callers at the gate or in line
	senders  atomic.Int32 // those of them that want to send
	deadline atomic.Int64 // the user's write deadline since epoch, 0 for none
	reserved atomic.Bool  // the next room is for who holds the gate, who starved

	mu          sync.Mutex
	parker      parker    // made by the first who waits, closed by the last: each received packet would wake it
	pauseEnd    time.Time // when who holds the gate wants to try again
	interrupted bool      // the context of who holds the gate is done
}

func (r *room) init(raw syscall.RawConn) {
	r.raw = raw
	r.gate = make(chan struct{}, 1)
}

// sendInTurn waits for room and sends what b holds, or as much as fits.
func (c *Conn) sendInTurn(ctx context.Context, b *batch, flags int) (int, error) {
	c.room.senders.Add(1)
	defer c.room.senders.Add(-1)
	if err := c.lineUp(ctx); err != nil {
		return 0, err
	}
	defer c.room.leave()
	c.stats.parked.Add(1)
	start, hasRoom := time.Now(), false
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		if time.Since(start) >= starvedAfter && !c.room.reserved.Swap(true) {
			hasRoom = false // the room may be there for us now
		}
		var err error
		// Where there was room and still nothing fitted, asking for it again
		// would be answered at once, over and over.
		if hasRoom, err = c.park(ctx, pause, hasRoom); err != nil {
			return 0, err
		}
		if n, err := c.write(b, flags); n > 0 || err != ErrWouldBlock {
			return n, err
		}
	}
}

// WaitWritable waits until the socket has room, as poll(2)'s POLLOUT says it
// (GLib's G_IO_OUT condition): on Linux, until half of the send buffer is free.
// An error in the socket's error queue does not count as room, and while senders
// keep the buffer more than half full there is none. It blocks whether or not
// the Conn is NonBlocking, and ends with an error that Is ctx.Err() when ctx is
// done, os.ErrDeadlineExceeded at the write deadline, and net.ErrClosed when
// the Conn is closed. A nil ctx is never done.
func (c *Conn) WaitWritable(ctx context.Context) error {
	for {
		hasRoom, err := c.waitTurn(ctx)
		if err != nil {
			return c.wrap(err, netip.AddrPort{})
		}
		if hasRoom {
			return nil
		}
	}
}

// waitTurn waits for room for one turn, a short one if there are senders in line,
// who can do with less room.
func (c *Conn) waitTurn(ctx context.Context) (hasRoom bool, err error) {
	if err := c.ready(ctx); err != nil {
		return false, err
	}
	if err := c.lineUp(ctx); err != nil {
		return false, err
	}
	defer c.room.leave()
	turn := lastPause
	if c.room.senders.Load() != 0 {
		turn = firstPause
	}
	return c.park(ctx, turn, false)
}

// lineUp returns with the gate, in the order of arrival, or with what ended the
// wait for it. Only the context wakes who is in line: the deadline and Close
// wake who holds the gate, and so all in line, one after the other. A deadline
// that moves costs nobody its place.
func (c *Conn) lineUp(ctx context.Context) error {
	r := &c.room
	r.mu.Lock()
	r.waiting.Add(1)
	r.mu.Unlock()
	var cancelled <-chan struct{}
	if ctx != nil {
		cancelled = ctx.Done()
	}
	select {
	case r.gate <- struct{}{}:
		return nil
	case <-cancelled:
		err := c.ready(ctx)
		r.exit()
		return err
	}
}

// leave gives the gate to the next in line.
func (r *room) leave() {
	r.reserved.Store(false)
	<-r.gate
	r.exit()
}

// exit ends a wait. The last closes the parker, under mu, so that Close finds
// it either open or closed.
func (r *room) exit() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting.Add(-1) == 0 && r.parker != nil {
		r.parker.close()
		r.parker = nil
	}
}

// park waits, with the gate held, until the socket has room or the pause is
// over, and then says why the call cannot go on, if it cannot. If it is blind, it
// waits for the end of the pause alone.
func (c *Conn) park(ctx context.Context, pause time.Duration, blind bool) (hasRoom bool, err error) {
	r := &c.room
	p := r.arm(pause)
	if p == nil {
		return false, net.ErrClosed
	}
	if ctx != nil && ctx.Done() != nil {
		joined := make(chan struct{})
		stop := context.AfterFunc(ctx, func() {
			r.interrupt()
			close(joined)
		})
		err = p.park(blind)
		if !stop() {
			<-joined // or it would interrupt the next who holds the gate
		}
	} else {
		err = p.park(blind)
	}
	if why := c.ready(ctx); why != nil {
		return false, why
	}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return false, cause(err)
	}
	return err == nil, nil
}

// arm readies the parker for who holds the gate. It is nil after Close.
func (r *room) arm(pause time.Duration) parker {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed.Load() {
		return nil
	}
	if r.parker == nil {
		r.parker = newParker(r.raw)
	}
	r.pauseEnd = time.Now().Add(pause)
	r.interrupted = false
	r.wakeInTime()
	return r.parker
}

func (r *room) interrupt() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.interrupted = true
	r.wakeInTime()
}

// wakeInTime sets the parker's deadline from the three things that wake it.
// The caller holds mu.
func (r *room) wakeInTime() {
	if r.parker == nil {
		return
	}
	wake := r.pauseEnd
	if at := r.deadline.Load(); at != 0 {
		if t := epoch.Add(time.Duration(at)); t.Before(wake) {
			wake = t
		}
	}
	if r.interrupted {
		wake = epoch
	}
	r.parker.setDeadline(wake)
}

// SetWriteDeadline sets the deadline of all sends, those under way included,
// as in package net; the zero time is none.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	return c.room.setDeadline(t, c.udpConn.SetWriteDeadline)
}

// SetDeadline sets the read and the write deadline.
func (c *Conn) SetDeadline(t time.Time) error {
	return c.room.setDeadline(t, c.udpConn.SetDeadline)
}

// setDeadline sets the user's deadline where it is kept: on the socket, which
// set does, in our record, and for who is parked.
func (r *room) setDeadline(t time.Time, set func(time.Time) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := set(t); err != nil {
		return err
	}
	r.deadline.Store(deadlineSinceEpoch(t))
	r.wakeInTime()
	return nil
}

// deadlineSinceEpoch goes by the time left until t, as the runtime does: a t
// without a monotonic reading means that much from now, whatever the wall clock
// does later. It is 0 only for the zero t.
func deadlineSinceEpoch(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	now, left := sinceEpoch(time.Now()), int64(time.Until(t))
	switch {
	case left > math.MaxInt64-now:
		return math.MaxInt64
	case now+left == 0:
		return -1
	}
	return now + left
}

// Close closes the socket. Sends that wait end with net.ErrClosed, and when
// Close returns the port can be bound again.
func (c *Conn) Close() error {
	if c.raw != nil {
		c.room.close()
	}
	return c.udpConn.Close()
}

func (r *room) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed.Swap(true) {
		return
	}
	if r.parker != nil {
		r.parker.close()
		r.parker = nil
	}
}

// pollEvery is how often a pollParker looks.
const pollEvery = time.Millisecond

// A pollParker parks by asking again and again. It serves systems whose
// descriptors cannot be duplicated, and processes that have none left.
type pollParker struct {
	raw      syscall.RawConn
	deadline atomic.Int64 // since epoch
	closed   atomic.Bool
}

func (p *pollParker) park(blind bool) error {
	for {
		if p.closed.Load() {
			return os.ErrClosed
		}
		if sinceEpoch(time.Now()) >= p.deadline.Load() {
			return os.ErrDeadlineExceeded
		}
		if !blind {
			if ok, err := writable(p.raw); ok || err != nil {
				return err
			}
		}
		time.Sleep(pollEvery)
	}
}

func (p *pollParker) setDeadline(t time.Time) { p.deadline.Store(sinceEpoch(t)) }
func (p *pollParker) close()                  { p.closed.Store(true) }
