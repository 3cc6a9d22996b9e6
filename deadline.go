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
// (or an empty one) stands in a line with one place. The caller that has the
// place is parked, tries again, and leaves once something left or failed, to
// the end of the line if it has more. So those that wait take turns, newcomers
// that may wait queue behind them, and callers that may not wait never meet the
// line. Callers that only watch have a line of their own, and all wake at once.
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

	// A caller that has the place tries again after a pause. A short one, which
	// doubles from minPause to maxPause, if the socket was ready and the try was
	// in vain; a long one if the socket does not become ready.
	minPause, maxPause, longPause time.Duration

	// A caller that has had the place in vain for this long gets what comes
	// next: callers that may not wait leave it alone meanwhile.
	starvedAfter time.Duration

	// A parker is closed when it was not used for this long.
	keepParker time.Duration
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
	takers   atomic.Int32 // callers in turn, parked or not
	deadline atomic.Int64 // the user's, since epoch; 0 for none
	since    atomic.Int64 // epoch: when the taker that has the place began to wait; 0 for none

	turns atomic.Uint64 // of takers

	mu    sync.Mutex
	turn  *line // takers
	watch *line // callers that take nothing
}

// A line is callers that wait for the same. One has the place and is parked.
// The first caller makes it: most Conns never wait for room.
type line struct {
	taken       bool      // somebody has the place
	waiters     []*waiter // the others, in order of arrival
	parker      parker    // made by the first that is parked
	pauseEnd    int64     // since epoch: when the caller that has the place wants to try again
	wakeAt      int64     // since epoch: the deadline of the parker
	interrupted bool      // the context of the caller that has the place is done

	left   time.Time   // when the place was given back
	expiry *time.Timer // closes a parker that was not used for long
	armed  bool        // expiry is to come
}

// A waiter is a caller that sleeps until somebody wakes it.
type waiter struct {
	woken chan bool // has room for the one wake that each waiter gets; true: all is done
}

var waiters = sync.Pool{New: func() any { return &waiter{make(chan bool, 1)} }}

func (q *queue) init(raw syscall.RawConn, rule *waitRule) { q.raw, q.rule = raw, rule }

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

// cancelled is check when ctx has said that it is done. A context of the user's
// may say so before it can say why.
func (q *queue) cancelled(ctx context.Context) error {
	if err := q.check(ctx); err != nil {
		return err
	}
	return context.Canceled
}

// A saidWhy is a context that always has a reason when it is done, without
// which context.AfterFunc panics.
type saidWhy struct{ context.Context }

func (c saidWhy) Err() error {
	if err := c.Context.Err(); err != nil {
		return err
	}
	select {
	case <-c.Done():
		return context.Canceled
	default:
		return nil
	}
}

// mustWait reports whether a caller has to leave what there is to others. A
// caller that may wait queues behind those that wait already. No caller takes
// what is reserved for one that starved.
func (q *queue) mustWait(mayWait bool) bool {
	return q.takers.Load() != 0 && (mayWait || q.starved())
}

// starved reports whether a taker has waited for too long.
func (q *queue) starved() bool {
	since := q.since.Load()
	return since != 0 && sinceEpoch(time.Now())-since >= int64(q.rule.starvedAfter)
}

// inTurn waits in line, and with the place until try returns anything but
// ErrWouldBlock. It returns that, or what ended the waiting.
func (q *queue) inTurn(ctx context.Context, try func() error) error {
	q.takers.Add(1)
	defer q.takers.Add(-1)
	l := q.lineAt(&q.turn)
	if _, err := q.enter(ctx, l); err != nil {
		return err
	}
	defer q.leaveTurn()
	q.turns.Add(1)
	q.since.Store(sinceEpoch(time.Now()))
	return q.parkUntil(ctx, l, func(bool) error { return try() })
}

func (q *queue) leaveTurn() {
	q.since.Store(0)
	q.leave(q.turn, false)
}

// await waits until the socket is ready, and that not for one that starved, and
// takes nothing. All callers wait for the same, so one is parked for all of
// them.
func (q *queue) await(ctx context.Context) error {
	if err := q.check(ctx); err != nil {
		return err
	}
	l := q.lineAt(&q.watch)
	done, err := q.enter(ctx, l)
	if err != nil || done {
		return err
	}
	err = q.parkUntil(ctx, l, func(ready bool) error {
		if !ready || q.starved() {
			return ErrWouldBlock
		}
		return nil
	})
	q.leave(l, err == nil)
	return err
}

// parkUntil parks, with the place, until try returns anything but
// ErrWouldBlock. It returns that, or what ended the waiting. try is told whether
// the socket was ready.
func (q *queue) parkUntil(ctx context.Context, l *line, try func(ready bool) error) error {
	ready := false
	for short := q.rule.minPause; ; {
		// Where the socket was ready and the try was in vain, asking again would be
		// answered at once, over and over.
		blind, pause := ready, q.rule.longPause
		if blind {
			pause, short = short, min(2*short, q.rule.maxPause)
		}
		var err error
		if ready, err = q.park(ctx, l, pause, blind); err != nil {
			return err
		}
		if err := try(ready); err != ErrWouldBlock {
			return err
		}
	}
}

// lineAt is one of the two lines.
func (q *queue) lineAt(at **line) *line {
	q.mu.Lock()
	defer q.mu.Unlock()
	if *at == nil {
		*at = new(line)
	}
	return *at
}

// enter returns with the place of l, in the order of arrival, or with what
// ended the wait for it; or all is done, and it has no place. Only the context
// wakes a caller in line: the deadline and Close wake the one that has the
// place, and so all in line, one after the other. A deadline that moves costs
// nobody its place.
func (q *queue) enter(ctx context.Context, l *line) (done bool, err error) {
	q.mu.Lock()
	if !l.taken {
		l.taken = true
		q.mu.Unlock()
		return false, nil
	}
	w := waiters.Get().(*waiter)
	defer waiters.Put(w)
	l.waiters = append(l.waiters, w)
	q.mu.Unlock()
	var cancelled <-chan struct{}
	if ctx != nil {
		cancelled = ctx.Done()
	}
	select {
	case done := <-w.woken:
		return done, nil
	case <-cancelled:
		q.giveUp(l, w)
		return false, q.cancelled(ctx)
	}
}

// giveUp takes w out of the line. If its turn came meanwhile, it is the next's.
func (q *queue) giveUp(l *line, w *waiter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := slices.Index(l.waiters, w); i >= 0 {
		l.waiters = slices.Delete(l.waiters, i, i+1)
		return
	}
	if done := <-w.woken; !done {
		q.leaveLocked(l, false)
	}
}

// leave gives the place to the next in line, or, if all is done, wakes them
// all.
func (q *queue) leave(l *line, done bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.leaveLocked(l, done)
}

func (q *queue) leaveLocked(l *line, done bool) {
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
	q.keepLocked(l)
}

// keepLocked has the parker closed only after a while. To make a new one for
// each wait costs more than the wait; but each packet that arrives wakes it
// too.
func (q *queue) keepLocked(l *line) {
	l.left = time.Now()
	if l.parker == nil || l.armed {
		return
	}
	l.armed = true
	if l.expiry == nil {
		l.expiry = time.AfterFunc(q.rule.keepParker, func() { q.expire(l) })
	} else {
		l.expiry.Reset(q.rule.keepParker)
	}
}

func (q *queue) expire(l *line) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l.armed = false
	if l.taken || l.parker == nil {
		return
	}
	if rest := q.rule.keepParker - time.Since(l.left); rest > 0 {
		l.armed = true
		l.expiry.Reset(rest)
		return
	}
	l.closeParker()
}

func (l *line) closeParker() {
	if l.parker != nil {
		l.parker.close()
		l.parker = nil
	}
}

// park waits, with the place, until the socket is ready or the pause is over,
// and then says why the call cannot go on, if it cannot. If it is blind, it
// waits for the end of the pause alone.
func (q *queue) park(ctx context.Context, l *line, pause time.Duration, blind bool) (ready bool, err error) {
	p := q.arm(l, pause)
	if p == nil {
		return false, net.ErrClosed
	}
	interrupted := false
	if ctx != nil && ctx.Done() != nil {
		joined := make(chan struct{})
		stop := context.AfterFunc(saidWhy{ctx}, func() {
			q.interrupt(l)
			close(joined)
		})
		err = p.park(blind)
		if interrupted = !stop(); interrupted {
			<-joined // or it would interrupt the next that has the place
		}
	} else {
		err = p.park(blind)
	}
	if interrupted {
		return false, q.cancelled(ctx)
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
func (q *queue) arm(l *line, pause time.Duration) parker {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed.Load() {
		return nil
	}
	if l.parker == nil {
		l.parker, l.wakeAt = newParker(q.raw, q.rule), 0
	}
	now := sinceEpoch(time.Now())
	l.pauseEnd, l.interrupted = now+int64(pause), false
	if pause != q.rule.longPause || l.wakeAt < now+int64(pause/2) || l.wakeAt > q.wakeLocked(l) {
		q.wakeInTimeLocked(l) // else near enough: moving a timer may wake a thread of the runtime's
	}
	return l.parker
}

func (q *queue) interrupt(l *line) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l.interrupted = true
	q.wakeInTimeLocked(l)
}

// wakeInTimeLocked sets the parker's deadline.
func (q *queue) wakeInTimeLocked(l *line) {
	if l != nil && l.parker != nil {
		l.wakeAt = q.wakeLocked(l)
		l.parker.setDeadline(epoch.Add(time.Duration(l.wakeAt)))
	}
}

// wakeLocked is when to wake the caller that is parked: the first of the three
// things that wake it.
func (q *queue) wakeLocked(l *line) int64 {
	if l.interrupted {
		return 0
	}
	if at := q.deadline.Load(); at != 0 {
		return min(at, l.pauseEnd)
	}
	return l.pauseEnd
}

// setDeadline sets the user's deadline where it is held: on the socket, which
// set does, in our record, and for the callers that are parked.
func (q *queue) setDeadline(t time.Time, set func(time.Time) error) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := set(t); err != nil {
		return err
	}
	q.deadline.Store(deadlineSinceEpoch(t))
	q.wakeInTimeLocked(q.turn)
	q.wakeInTimeLocked(q.watch)
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

// close wakes all that wait, for good.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed.Swap(true) {
		return
	}
	for _, l := range []*line{q.turn, q.watch} {
		if l == nil {
			continue
		}
		l.closeParker()
		if l.expiry != nil {
			l.expiry.Stop()
		}
	}
}

// A parker waits until the socket is ready.
type parker interface {
	// park returns nil once the socket is ready, os.ErrDeadlineExceeded at the
	// deadline and os.ErrClosed after close. If it is blind it does not look at
	// the socket. One goroutine at a time parks.
	park(blind bool) error
	setDeadline(t time.Time) // wakes park when t has passed; any goroutine
	close()                  // wakes park, and returns once it is off the socket
}

// newParker makes a parker of a duplicate of the socket. Failing that (no
// descriptor left, no duplicates on this system), it polls: a call that may
// wait does not fail for that.
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
