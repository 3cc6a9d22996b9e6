// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"cmp"
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
// Working never waits and waiting never works. Both directions have ends, which
// end calls, and a line: a caller that met a full or an empty socket stands in
// it, for one place. Only the caller that has the place is parked. It tries
// again, and leaves once something left, came or failed, to the end of the line
// if it has more. So those that wait take turns, newcomers that may wait queue
// behind them, and callers that may not wait never meet the line.
//
// Where the caller is parked differs. A read parks on the socket itself, see
// readQueue. What waits for room parks on a duplicate of the socket, whose
// deadline wakes it and fails nobody else's calls. A waitRule says what it
// waits for and how often it tries. Callers that only watch have a place and a
// line of their own, and all wake at once.

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
	parkerExpiry time.Duration
}

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

// cancelled is check when ctx has said that it is done. A context of the user's
// may say so before it can say why.
func (e *ends) cancelled(ctx context.Context) error {
	if err := e.check(ctx); err != nil {
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

// A line is callers that wait for one place, in the order of arrival.
type line struct {
	mu      sync.Mutex
	taken   bool      // a caller has the place
	waiters []*waiter // the others
}

// A waiter is a caller that sleeps until somebody wakes it.
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
		return false, e.cancelled(ctx)
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

func (l *line) isTaken() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.taken
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

// A queue is where callers wait until the socket is ready, parked on a
// duplicate of it.
type queue struct {
	ends ends
	rule *waitRule

	// Read by every call.
	takers atomic.Int32 // callers in turn, parked or not
	since  atomic.Int64 // epoch: when the taker that has the place began to wait; 0 for none

	turns atomic.Uint64 // of takers

	mu    sync.Mutex // of the places, and for deadlines that reach the socket
	turn  *place     // of takers
	watch *place     // of callers that take nothing
}

// A place is where one caller is parked, and the line for it. The first caller
// makes it: most Conns never wait for room.
type place struct {
	line line

	// Under the queue's mu.
	parker      parker      // made by the first that is parked
	pauseEnd    int64       // since epoch: when the caller that has the place wants to try again
	wakeAt      int64       // since epoch: the deadline of the parker
	interrupted bool        // the context of the caller that has the place is done
	used        int64       // since epoch: when a caller was parked last
	expiry      *time.Timer // closes a parker that was not used for long
}

func (q *queue) init(raw syscall.RawConn, rule *waitRule) { q.ends.raw, q.rule = raw, rule }

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
	p := q.place(&q.turn)
	if _, err := p.line.enter(ctx, &q.ends); err != nil {
		return err
	}
	defer q.leaveTurn()
	q.turns.Add(1)
	q.since.Store(sinceEpoch(time.Now()))
	return q.parkUntil(ctx, p, func(bool) error { return try() })
}

func (q *queue) leaveTurn() {
	q.since.Store(0)
	q.turn.line.leave(false)
}

// await waits until the socket is ready, and that not for one that starved, and
// takes nothing. All callers wait for the same, so one is parked for all of
// them.
func (q *queue) await(ctx context.Context) error {
	if err := q.ends.check(ctx); err != nil {
		return err
	}
	p := q.place(&q.watch)
	done, err := p.line.enter(ctx, &q.ends)
	if err != nil || done {
		return err
	}
	err = q.parkUntil(ctx, p, func(ready bool) error {
		if !ready || q.starved() {
			return ErrWouldBlock
		}
		return nil
	})
	p.line.leave(err == nil)
	return err
}

// parkUntil parks, with the place, until try returns anything but
// ErrWouldBlock. It returns that, or what ended the waiting. try is told
// whether the socket was ready.
func (q *queue) parkUntil(ctx context.Context, p *place, try func(ready bool) error) error {
	ready := false
	for short := q.rule.minPause; ; {
		// Where the socket was ready and the try was in vain, asking again would be
		// answered at once, over and over.
		blind, pause := ready, q.rule.longPause
		if blind {
			pause, short = short, min(2*short, q.rule.maxPause)
		}
		var err error
		if ready, err = q.park(ctx, p, pause, blind); err != nil {
			return err
		}
		if err := try(ready); err != ErrWouldBlock {
			return err
		}
	}
}

// place is one of the two places.
func (q *queue) place(at **place) *place {
	q.mu.Lock()
	defer q.mu.Unlock()
	if *at == nil {
		*at = new(place)
	}
	return *at
}

// makeParkerLocked makes a parker, and has it closed when it has not been used
// for a while. To make a new one for each wait costs more than the wait; but
// each packet that arrives wakes it too.
func (q *queue) makeParkerLocked(p *place) {
	p.parker, p.wakeAt = newParker(q.ends.raw, q.rule), 0
	p.expiry = time.AfterFunc(q.rule.parkerExpiry, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		rest := q.rule.parkerExpiry - time.Duration(sinceEpoch(time.Now())-p.used)
		switch {
		case p.parker == nil:
		case p.line.isTaken():
			p.expiry.Reset(q.rule.parkerExpiry)
		case rest > 0:
			p.expiry.Reset(rest)
		default:
			p.closeParker()
		}
	})
}

func (p *place) closeParker() {
	if p.parker != nil {
		p.parker.close()
		p.parker = nil
	}
}

// park waits, with the place, until the socket is ready or the pause is over,
// and then says why the call cannot go on, if it cannot. If it is blind, it
// waits for the end of the pause alone.
func (q *queue) park(ctx context.Context, p *place, pause time.Duration, blind bool) (ready bool, err error) {
	parker := q.arm(p, pause)
	if parker == nil {
		return false, net.ErrClosed
	}
	interrupted := false
	if ctx != nil && ctx.Done() != nil {
		joined := make(chan struct{})
		stop := context.AfterFunc(saidWhy{ctx}, func() {
			q.interrupt(p)
			close(joined)
		})
		err = parker.park(blind)
		if interrupted = !stop(); interrupted {
			<-joined // or it would interrupt the next that has the place
		}
	} else {
		err = parker.park(blind)
	}
	if interrupted {
		return false, q.ends.cancelled(ctx)
	}
	if ended := q.ends.check(ctx); ended != nil {
		return false, ended
	}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return false, cause(err)
	}
	return err == nil, nil
}

// arm readies the parker for the caller that has the place. It is nil after
// Close.
func (q *queue) arm(p *place, pause time.Duration) parker {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ends.closed.Load() {
		return nil
	}
	if p.parker == nil {
		q.makeParkerLocked(p)
	}
	now := sinceEpoch(time.Now())
	p.used = now
	p.pauseEnd, p.interrupted = now+int64(pause), false
	if pause != q.rule.longPause || p.wakeAt < now+int64(pause/4) || p.wakeAt > q.wakeLocked(p) {
		q.wakeInTimeLocked(p) // else near enough: moving a timer may wake a thread of the runtime's
	}
	return p.parker
}

func (q *queue) interrupt(p *place) {
	q.mu.Lock()
	defer q.mu.Unlock()
	p.interrupted = true
	q.wakeInTimeLocked(p)
}

// wakeInTimeLocked sets the parker's deadline.
func (q *queue) wakeInTimeLocked(p *place) {
	if p != nil && p.parker != nil {
		p.wakeAt = q.wakeLocked(p)
		p.parker.setDeadline(epoch.Add(time.Duration(p.wakeAt)))
	}
}

// wakeLocked is when to wake the caller that is parked: the first of the three
// things that wake it.
func (q *queue) wakeLocked(p *place) int64 {
	if p.interrupted {
		return 0
	}
	if at := q.ends.deadline.Load(); at != 0 {
		return min(at, p.pauseEnd)
	}
	return p.pauseEnd
}

// setDeadline sets the user's deadline where it is held: on the socket, which
// set does, in our record, and for the callers that are parked.
func (q *queue) setDeadline(t time.Time, set func(time.Time) error) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := set(t); err != nil {
		return err
	}
	q.ends.deadline.Store(deadlineSinceEpoch(t))
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

// close wakes all that wait, for good.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ends.closed.Swap(true) {
		return
	}
	for _, p := range []*place{q.turn, q.watch} {
		if p != nil && p.parker != nil {
			p.closeParker()
			p.expiry.Stop()
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
