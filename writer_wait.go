// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"context"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Waiting in a Writer.
//
// Writes wait for room in the order in which they came. The goroutine that
// makes room accepts the datagrams of those that wait, as many as fit, and then
// wakes them: none is woken in vain, and none that comes later takes the room.
// Flush and Close wait until what they want is finished.

// A waitingCall is a write, a Flush or a Close that waits.
type waitingCall struct {
	woken chan struct{} // has place for one wake-up; one may come for nothing
	timer *time.Timer   // made when it is first needed

	packet   packet      // of a write
	accepted atomic.Bool // by the goroutine that made room for it
	target   uint64      // of a Flush or Close: how many datagrams are to be finished

	next, prev *waitingCall // in line; then next is the one to wake
}

var waitingCallPool = sync.Pool{New: func() any { return &waitingCall{woken: make(chan struct{}, 1)} }}

func newWaitingCall() *waitingCall { return waitingCallPool.Get().(*waitingCall) }

// free puts p back; nothing refers to it any more.
func (p *waitingCall) free() {
	p.packet, p.target = packet{}, 0
	p.accepted.Store(false)
	select {
	case <-p.woken:
	default:
	}
	waitingCallPool.Put(p)
}

// accept says that the datagram of p, which is in line no more, was accepted,
// and that p is to wake next, if that is not nil. p may be gone when it
// returns.
func (p *waitingCall) accept(next *waitingCall) {
	p.next = next
	p.accepted.Store(true)
}

// goOn is what p does when it was accepted: it wakes the next of its chain.
func (p *waitingCall) goOn() {
	next := p.next
	p.next = nil
	p.free()
	if next != nil {
		next.wake()
	}
}

// wake wakes p, now or when it next sleeps.
func (p *waitingCall) wake() {
	select {
	case p.woken <- struct{}{}:
	default:
	}
}

// sleep returns when p is woken, ctx is done or so much time has passed; a time
// of 0 is none.
func (p *waitingCall) sleep(ctx context.Context, limit time.Duration) {
	var cancelled <-chan struct{}
	if ctx != nil {
		cancelled = ctx.Done()
	}
	if cancelled == nil && limit == 0 {
		<-p.woken
		return
	}
	var expired <-chan time.Time
	if limit != 0 {
		if p.timer == nil {
			p.timer = time.NewTimer(limit)
		} else {
			p.timer.Reset(limit)
		}
		defer p.timer.Stop()
		expired = p.timer.C
	}
	select {
	case <-p.woken:
	case <-cancelled:
	case <-expired:
	}
}

// A callQueue is calls that wait, in order of arrival.
type callQueue struct{ first, last *waitingCall }

func (q *callQueue) empty() bool { return q.first == nil }

func (q *callQueue) push(p *waitingCall) {
	p.prev, p.next = q.last, nil
	if q.last == nil {
		q.first = p
	} else {
		q.last.next = p
	}
	q.last = p
}

func (q *callQueue) remove(p *waitingCall) {
	if p.prev == nil {
		q.first = p.next
	} else {
		p.prev.next = p.next
	}
	if p.next == nil {
		q.last = p.prev
	} else {
		p.next.prev = p.prev
	}
	p.prev, p.next = nil, nil
}

func (q *callQueue) wakeAll() {
	for p := q.first; p != nil; p = p.next {
		p.wake()
	}
}

// hasRoomLocked reports whether a write that comes now need not wait. mu is
// held.
func (w *Writer) hasRoomLocked(size int) bool { return w.writes.empty() && w.held.fits(size) }

// acceptWaiting accepts a datagram for which there is no room once there is, or
// says why not. It is called with mu held and returns without it.
func (w *Writer) acceptWaiting(d *packet) error {
	if !w.closed {
		w.makeRoomLocked()
	}
	err := w.endLocked()
	switch {
	case w.closed:
	case w.hasRoomLocked(d.size()):
		w.holdLocked(d, sinceStart())
		w.mu.Unlock()
		return nil
	case w.engine.nonBlocking:
		w.engine.counters.wouldBlock.Add(1)
		err = ErrWouldBlock
	case err == nil:
		p := newWaitingCall()
		p.packet = *d
		w.writes.push(p)
		return w.awaitRoom(p)
	}
	w.mu.Unlock()
	return err
}

// makeRoomLocked has what is held sent, by itself if nobody is at it. mu is
// held before and after.
func (w *Writer) makeRoomLocked() {
	w.due = w.held.accepted
	if !w.turn.busy() {
		w.sendLocked(false)
	}
}

// awaitRoom returns when the datagram of p, which is in line, was accepted, or
// says why it will not be. It is called with mu held and returns without it.
func (w *Writer) awaitRoom(p *waitingCall) error {
	for {
		w.due = w.held.accepted // as much may have been accepted as has left
		w.callFlusherLocked()
		limit := w.untilDeadlineLocked()
		w.mu.Unlock()
		p.sleep(nil, limit)
		if p.accepted.Load() {
			p.goOn()
			return nil
		}
		w.mu.Lock()
		err := w.endLocked()
		if p.accepted.Load() {
			w.mu.Unlock()
			p.goOn()
			return nil
		}
		if err != nil {
			w.writes.remove(p)
			heads := w.acceptInLineLocked(nil) // p may have been the one that did not fit
			w.callFlusherLocked()
			w.mu.Unlock()
			for _, head := range heads {
				head.wake()
			}
			p.free()
			return err
		}
	}
}

// maxChain is how many writes that wait are woken one by the other. The
// goroutine that sends wakes only the first of each chain: to wake them all
// would be as much work as the sending. In a chain each runs where the last one
// has just run, and no queue of the scheduler's overflows; but until it has
// run, those behind it sleep, even if other processors are idle.
const maxChain = 8

// acceptInLineLocked accepts the datagrams of the writes that wait, as long as
// they fit, and appends to heads those that the caller is to wake. mu is held.
func (w *Writer) acceptInLineLocked(heads []*waitingCall) []*waitingCall {
	if w.writes.empty() || w.closed {
		return heads
	}
	now := sinceStart()
	for p := w.writes.first; p != nil && w.held.fits(p.packet.size()); p = w.writes.first {
		heads = append(heads, p)
		for n := 1; ; n++ {
			w.addInLineLocked(p, now)
			next := w.writes.first
			if n == maxChain || next == nil || !w.held.fits(next.packet.size()) {
				break
			}
			p.accept(next)
			p = next
		}
		p.accept(nil)
	}
	if !w.writes.empty() {
		w.due = w.held.accepted
	}
	return heads
}

// addInLineLocked adds the datagram of p, which is first in line, to what is
// held. mu is held.
func (w *Writer) addInLineLocked(p *waitingCall, now int64) {
	w.writes.remove(p)
	w.addLocked(&p.packet, now)
	if w.isDueLocked(now, p.packet.size()) {
		w.due = w.held.accepted
	}
}

// wakeHeads wakes the writes that need not wait any more. Only the goroutine
// that sends calls it.
func (w *Writer) wakeHeads() {
	for _, p := range w.heads {
		p.wake()
	}
	clear(w.heads)
	w.heads = w.heads[:0]
}

// endLocked says why a call waits no longer: the Writer is closed, or its write
// deadline has passed. mu is held.
func (w *Writer) endLocked() error {
	switch {
	case w.closed:
		return net.ErrClosed
	case w.untilDeadlineLocked() < 0:
		return os.ErrDeadlineExceeded
	}
	return nil
}

// untilDeadlineLocked is how much time is left: below 0 none, and 0 if there is
// no deadline. mu is held.
func (w *Writer) untilDeadlineLocked() time.Duration {
	if w.deadline == 0 {
		return 0
	}
	if left := w.deadline - sinceStart(); left > 0 {
		return time.Duration(left)
	}
	return -1
}

// awaitFinishedLocked returns when so many datagrams are finished, something
// else has changed, ctx is done or so much time has passed; a limit of 0 is
// none. mu is held before and after.
func (w *Writer) awaitFinishedLocked(ctx context.Context, target uint64, limit time.Duration) {
	p := newWaitingCall()
	p.target = target
	w.flushes.push(p)
	w.mu.Unlock()
	p.sleep(ctx, limit)
	w.mu.Lock()
	w.flushes.remove(p)
	p.free()
}

// wakeFlushesLocked wakes those that wait for what is finished. mu is held.
func (w *Writer) wakeFlushesLocked() {
	for p := w.flushes.first; p != nil; p = p.next {
		if p.target <= w.held.finished {
			p.wake()
		}
	}
}

// wakeAllLocked wakes all that wait, to look for themselves. mu is held.
func (w *Writer) wakeAllLocked() {
	w.writes.wakeAll()
	w.flushes.wakeAll()
}

// sinceStart is the time now, since epoch.
func sinceStart() int64 { return int64(time.Since(epoch)) }
