// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"context"
	"errors"
	"math"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/batchconn/batchconn/internal/sys"
)

// Waiting.
//
// Working never waits and waiting never works. A caller that met a full socket
// (or an empty one) lines up at a queue with one place. The caller that has the
// place waits on a parker, tries again, and leaves once something left or failed,
// to the end of the line if it has more. So those that wait take turns, newcomers
// that may wait queue behind them, and callers that may not wait never meet the
// queue.
//
// The queue knows no direction: a waitRule has what differs.
//
// The parker is apart from the user's descriptor, so that its deadline, with
// which one caller is woken, fails nobody else's calls.

// A waitRule is what differs between waiting for room and for data.
type waitRule struct {
	// ready reports, without waiting, what is waited for.
	ready func(fd uintptr) (bool, error)

	// wait is RawConn.Write or RawConn.Read, and setDeadline sets the deadline
	// that ends it.
	wait        func(raw syscall.RawConn, f func(fd uintptr) bool) error
	setDeadline func(f *os.File, t time.Time) error

	// A waiting caller also tries again after a pause, which grows from minPause to
	// maxPause.
	minPause, maxPause time.Duration

	// A caller that has had the place in vain for this long gets what comes
	// next: callers that may not wait leave it alone meanwhile.
	starvedAfter time.Duration
}

// epoch makes points in time out of the monotonic clock.
var epoch = time.Now()

func sinceEpoch(t time.Time) int64 { return int64(t.Sub(epoch)) }

// A queue is where the callers of one direction of a Conn wait, and what ends
// their waiting: the user's deadline, contexts and Close.
type queue struct {
	raw  syscall.RawConn // nil if the Conn is not from New
	rule *waitRule

	// Written under mu, read without it by every call.
	closed   atomic.Bool
	takers   atomic.Int32 // callers that have the place or are in line, and take what they wait for
	deadline atomic.Int64 // the user's, since epoch; 0 for none
	reserved atomic.Bool  // what comes next is for the caller that has the place

	turns atomic.Uint64 // of takers

	mu          sync.Mutex
	taken       bool      // somebody has the place
	line        []*waiter // callers in line for it, in order of arrival
	parker      parker    // made by the first that waits, closed by the last: each received packet would wake it
	pauseEnd    time.Time // when the caller that has the place wants to try again
	interrupted bool      // the context of the caller that has the place is done
}

func (q *queue) init(raw syscall.RawConn, rule *waitRule) {
	q.raw, q.rule = raw, rule
}

// open says why no call can go on: no socket, closed, or ctx is done.
func (q *queue) open(ctx context.Context) error {
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

// check is open and the user's deadline: what is looked at before each call to
// the kernel.
func (q *queue) check(ctx context.Context) error {
	if err := q.open(ctx); err != nil {
		return err
	}
	if at := q.deadline.Load(); at != 0 && sinceEpoch(time.Now()) >= at {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// mustWait reports whether a caller has to leave what there is to others: a
// caller that may wait lines up behind those that wait already, and none takes
// what is being kept for one that starved.
func (q *queue) mustWait(mayWait bool) bool {
	return q.takers.Load() != 0 && (mayWait || q.reserved.Load())
}

// inTurn waits in line, and with the place until try returns anything but
// ErrWouldBlock. It returns that, or what ended the waiting.
func (q *queue) inTurn(ctx context.Context, try func() error) error {
	q.takers.Add(1)
	defer q.takers.Add(-1)
	if err := q.enter(ctx); err != nil {
		return err
	}
	defer q.leave()
	q.turns.Add(1)
	start, ready := time.Now(), false
	for pause := q.rule.minPause; ; pause = min(2*pause, q.rule.maxPause) {
		if time.Since(start) >= q.rule.starvedAfter && !q.reserved.Swap(true) {
			ready = false // it may be there for us now
		}
		var err error
		// Where the socket was ready and the try was in vain, asking again would be
		// answered at once, over and over.
		if ready, err = q.park(ctx, pause, ready); err != nil {
			return err
		}
		if err := try(); err != ErrWouldBlock {
			return err
		}
	}
}

// await waits until the socket is ready, and takes nothing.
func (q *queue) await(ctx context.Context) error {
	for {
		if ready, err := q.awaitTurn(ctx); ready || err != nil {
			return err
		}
	}
}

// awaitTurn waits for one turn, a short one if there are takers in line, which
// may do with less than what makes the socket ready.
func (q *queue) awaitTurn(ctx context.Context) (ready bool, err error) {
	if err := q.check(ctx); err != nil {
		return false, err
	}
	if err := q.enter(ctx); err != nil {
		return false, err
	}
	defer q.leave()
	turn := q.rule.maxPause
	if q.takers.Load() != 0 {
		turn = q.rule.minPause
	}
	return q.park(ctx, turn, false)
}

// A waiter is a caller that sleeps until somebody wakes it.
type waiter struct{ woken chan struct{} } // with place for the one wake that each waiter gets

var waiters = sync.Pool{New: func() any { return &waiter{make(chan struct{}, 1)} }}

// enter returns with the place, in the order of arrival, or with what ended the
// wait for it. Only the context wakes a caller in line: the deadline and Close
// wake the one that has the place, and so all in line, one after the other. A
// deadline that moves costs nobody its place.
func (q *queue) enter(ctx context.Context) error {
	q.mu.Lock()
	if !q.taken {
		q.taken = true
		q.mu.Unlock()
		return nil
	}
	w := waiters.Get().(*waiter)
	defer waiters.Put(w)
	q.line = append(q.line, w)
	q.mu.Unlock()
	var cancelled <-chan struct{}
	if ctx != nil {
		cancelled = ctx.Done()
	}
	select {
	case <-w.woken:
		return nil
	case <-cancelled:
		q.giveUp(w)
		return q.check(ctx)
	}
}

// giveUp takes w out of the line. If its turn came meanwhile, it is the next's.
func (q *queue) giveUp(w *waiter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := slices.Index(q.line, w); i >= 0 {
		q.line = slices.Delete(q.line, i, i+1)
		return
	}
	<-w.woken
	q.nextLocked()
}

// leave gives the place to the next in line.
func (q *queue) leave() {
	q.reserved.Store(false)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.nextLocked()
}

// nextLocked gives the place to the next in line. The last closes the parker,
// under mu, so that Close finds it either open or closed.
func (q *queue) nextLocked() {
	if len(q.line) > 0 {
		q.line[0].woken <- struct{}{}
		q.line = slices.Delete(q.line, 0, 1)
		return
	}
	q.taken = false
	if q.parker != nil {
		q.parker.close()
		q.parker = nil
	}
}

// park waits, with the place, until the socket is ready or the pause is over,
// and then says why the call cannot go on, if it cannot. If it is blind, it waits
// for the end of the pause alone.
func (q *queue) park(ctx context.Context, pause time.Duration, blind bool) (ready bool, err error) {
	p := q.arm(pause)
	if p == nil {
		return false, net.ErrClosed
	}
	if ctx != nil && ctx.Done() != nil {
		joined := make(chan struct{})
		stop := context.AfterFunc(ctx, func() {
			q.interrupt()
			close(joined)
		})
		err = p.park(blind)
		if !stop() {
			<-joined // or it would interrupt the next that has the place
		}
	} else {
		err = p.park(blind)
	}
	if ended := q.check(ctx); ended != nil {
		return false, ended
	}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return false, cause(err)
	}
	return err == nil, nil
}

// arm readies the parker for the caller that has the place. It is nil after
// Close.
func (q *queue) arm(pause time.Duration) parker {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed.Load() {
		return nil
	}
	if q.parker == nil {
		q.parker = newParker(q.raw, q.rule)
	}
	q.pauseEnd = time.Now().Add(pause)
	q.interrupted = false
	q.wakeInTimeLocked()
	return q.parker
}

func (q *queue) interrupt() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.interrupted = true
	q.wakeInTimeLocked()
}

// wakeInTimeLocked sets the parker's deadline from the three things that wake
// it.
func (q *queue) wakeInTimeLocked() {
	if q.parker == nil {
		return
	}
	wake := q.pauseEnd
	if at := q.deadline.Load(); at != 0 {
		if t := epoch.Add(time.Duration(at)); t.Before(wake) {
			wake = t
		}
	}
	if q.interrupted {
		wake = epoch
	}
	q.parker.setDeadline(wake)
}

// setDeadline sets the user's deadline where it is held: on the socket, which
// set does, in our record, and for the caller that is parked.
func (q *queue) setDeadline(t time.Time, set func(time.Time) error) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := set(t); err != nil {
		return err
	}
	q.deadline.Store(deadlineSinceEpoch(t))
	q.wakeInTimeLocked()
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

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed.Swap(true) {
		return
	}
	if q.parker != nil {
		q.parker.close()
		q.parker = nil
	}
}

// A parker waits until the socket is ready.
type parker interface {
	// park returns nil once the socket is ready, os.ErrDeadlineExceeded at the
	// deadline and os.ErrClosed after close. If it is blind it does not look at the
	// socket. One goroutine at a time parks.
	park(blind bool) error
	setDeadline(t time.Time) // wakes park when t has passed; any goroutine
	close()                  // wakes park, and returns once it is off the socket
}

// newParker makes a parker of a duplicate of the socket. Failing that (no
// descriptor left, no duplicates on this system), it polls: a call that may wait
// does not fail for that.
func newParker(raw syscall.RawConn, rule *waitRule) parker {
	p, err := newDupParker(raw, rule)
	if err != nil {
		return &pollParker{raw: raw, rule: rule}
	}
	return p
}

// A dupParker parks in the runtime's network poller on a duplicate of the
// socket.
type dupParker struct {
	rule  *waitRule
	file  *os.File
	raw   syscall.RawConn
	blind bool
	look  func(fd uintptr) bool
	err   error // of look
}

func newDupParker(raw syscall.RawConn, rule *waitRule) (*dupParker, error) {
	file, err := sys.Dup(raw)
	if err != nil {
		return nil, err
	}
	p := &dupParker{rule: rule, file: file}
	if err := rule.setDeadline(file, time.Time{}); err != nil { // not pollable
		file.Close()
		return nil, err
	}
	if p.raw, err = file.SyscallConn(); err != nil {
		file.Close()
		return nil, err
	}
	p.look = func(fd uintptr) (ok bool) {
		if p.blind {
			return false
		}
		ok, p.err = rule.ready(fd)
		return ok || p.err != nil
	}
	return p, nil
}

func (p *dupParker) park(blind bool) error {
	p.blind = blind
	if err := p.rule.wait(p.raw, p.look); err != nil {
		return err
	}
	return p.err
}

func (p *dupParker) setDeadline(t time.Time) { p.rule.setDeadline(p.file, t) }
func (p *dupParker) close()                  { p.file.Close() }

// pollEvery is how often a pollParker looks.
const pollEvery = time.Millisecond

// A pollParker parks by asking again and again. It serves systems whose
// descriptors cannot be duplicated, and processes that have none left.
type pollParker struct {
	raw      syscall.RawConn
	rule     *waitRule
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
			if ok, err := p.ready(); ok || err != nil {
				return err
			}
		}
		time.Sleep(pollEvery)
	}
}

func (p *pollParker) ready() (ok bool, err error) {
	controlErr := p.raw.Control(func(fd uintptr) { ok, err = p.rule.ready(fd) })
	if controlErr != nil {
		return false, controlErr
	}
	return ok, err
}

func (p *pollParker) setDeadline(t time.Time) { p.deadline.Store(sinceEpoch(t)) }
func (p *pollParker) close()                  { p.closed.Store(true) }
