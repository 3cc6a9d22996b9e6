// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"time"
)

// The sending of a Writer.
//
// Only one goroutine at a time sends, so that order is kept. A write, Flush and
// Close send without waiting, and hand what finds no room over to the flusher,
// a goroutine that ends when nothing is due any more.

const (
	// A write that comes so long after the last one is not part of a burst:
	// it sends its datagram itself, which is faster than waking a goroutine.
	idleAfter = 5 * time.Microsecond

	// A write that finds datagrams held for so long sends them itself: the
	// flusher was started and has not run, because all processors are busy.
	flusherLate = 50 * time.Microsecond

	// sendChunk is after how many datagrams their room is given back. On a full
	// socket that is one, and then fullChunk and twice as many each time that
	// all fit. The kernel counts a run as being there until its last datagram
	// has left (skb_segment): on a slow link, the longer the run, the longer
	// nobody else finds room.
	sendChunk = 256
	fullChunk = 8
)

// A turn says whose turn it is to send.
type turn int

const (
	idle         turn = iota // nobody's, and nobody was asked to send
	flusherDue               // nobody's: the flusher was started and has not run yet
	taken                    // that of the flusher, a write, Flush or Close
	beforeItsRun             // a write, Flush or Close, before the flusher, which was started, has run: it will end at once
	flusherNext              // the flusher, which was started and has not run yet: the socket is full for all others
)

func (t turn) busy() bool { return t >= taken }

// beginLocked makes the caller the one that sends. mu is held, as it is
// wherever that changes.
func (w *Writer) beginLocked() {
	switch w.turn {
	case idle:
		w.turn = taken
	case flusherDue:
		w.turn = beforeItsRun
	}
}

// endSendingLocked leaves what has come due meanwhile to the flusher.
func (w *Writer) endSendingLocked() {
	w.wakeHeads()
	if w.turn == beforeItsRun {
		w.turn = flusherDue
	} else {
		w.turn = idle
	}
	if w.closed {
		w.wakeAllLocked() // Close waits for this
	} else if w.held.finished < w.due {
		w.callFlusherLocked()
	}
}

// callFlusherLocked starts the flusher unless a call sends already and will
// see to what is due.
func (w *Writer) callFlusherLocked() {
	if w.turn == idle && w.ctx.Err() == nil {
		w.turn = flusherDue
		go w.run()
	}
}

// handOverLocked makes the flusher, which waits for room, the one that sends.
func (w *Writer) handOverLocked() {
	w.wakeHeads()
	if w.turn != beforeItsRun {
		go w.run()
	}
	w.turn = flusherNext
}

func (w *Writer) flusher() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.turn == beforeItsRun {
		w.turn = taken
		return
	}
	w.turn = idle
	w.sendLocked(true)
}

// sendLocked sends what is due, with mu held except for the sending itself.
// Unless it may wait it ends when the socket is full, or when one part has
// left: a write shall not send for others for ever.
func (w *Writer) sendLocked(wait bool) {
	w.beginLocked()
	var r sendResult
	size, full := sendChunk, false
	for more := true; more && w.held.finished < w.due && w.takeLocked(); {
		w.mu.Unlock()
		w.wakeHeads() // now that they find mu free, and this goroutine needs it no more
		r = w.sendSome(size, full)
		w.mu.Lock()
		w.held.finish(r.n, r.bytes)
		w.moveOnLocked(r.err)
		if r.blocked {
			more = wait && !full // or else Close waits no longer
			size, full = 1, true
		} else {
			more = wait || w.held.leaving != nil
			size, full = min(max(2*size, fullChunk), sendChunk), false
		}
	}
	if r.blocked && w.ctx.Err() == nil {
		w.handOverLocked()
	} else {
		w.endSendingLocked()
	}
}

// takeLocked makes sure that there is something in the part that leaves. mu is
// held.
func (w *Writer) takeLocked() bool {
	some, fresh := w.held.take()
	if fresh && w.timer != nil {
		w.timer.Stop() // it was for these
	}
	return some
}

// moveOnLocked is called when something was sent or reported, and room given
// back by that. It remembers the first error, and lets those go on that waited
// for this. mu is held before and after.
func (w *Writer) moveOnLocked(err error) {
	w.moves++
	if w.firstErr == nil {
		w.firstErr = err
	}
	w.wakeFlushesLocked()
	w.heads = w.acceptInLineLocked(w.heads)
}

// A sendResult is what became of the first messages of the part that leaves.
type sendResult struct {
	n, bytes int   // sent or reported
	err      error // the first of those reported
	blocked  bool  // the rest has to wait
}

// sendSome sends up to size datagrams of the part that leaves. If the socket is
// full it waits for room for them.
func (w *Writer) sendSome(size int, full bool) (r sendResult) {
	var ctx context.Context
	if full {
		ctx = w.ctx
	}
	h := w.held.leaving
	h.arrange(w.engine.gso.limits(0).segments > 1)
	b := newOutBatch()
	chunk := h.rest[:min(len(h.rest), size)]
	pace := &w.pace
	var try secondTry
	for r.n < len(chunk) && !r.blocked {
		part := chunk[r.n:][:pace.next(len(chunk)-r.n)]
		n, o, done := 0, outcome{}, false
		if len(part) == 1 && !full {
			n, o, done = w.engine.lone(nil, part, 0)
		}
		if !done {
			n, o = w.engine.transmit(ctx, b, part, 0, full)
		}
		for i := range chunk[r.n : r.n+n] {
			r.bytes += messageSize(&chunk[r.n+i])
		}
		r.n += n
		again, pending := try.judge(w.engine, n, o)
		w.note(&r, pending)
		if !again {
			pace.note(n, o)
		}
		switch {
		case again, o.err == nil:
		case o.ofMessage:
			if !w.sendCut(ctx, b, &r, &chunk[r.n], o) {
				w.fail(&r, &chunk[r.n], o)
			}
		case o.pending:
			w.note(&r, o)
		case errors.Is(o.err, ErrWouldBlock), full && w.ctx.Err() != nil:
			r.blocked = true
		default: // the Conn was closed, or its deadline set, not through the Writer
			for r.n < len(chunk) {
				w.fail(&r, &chunk[r.n], o)
			}
		}
	}
	b.free()
	return r
}

// note remembers an error of the socket, which is of no message here.
func (w *Writer) note(r *sendResult, o outcome) {
	if o.err != nil && r.err == nil {
		r.err = w.engine.report(o)
	}
}

func messageSize(m *OutputMessage) int { return m.payload() + len(m.Control) }

// fail reports m, the message after the first r.n.
func (w *Writer) fail(r *sendResult, m *OutputMessage, o outcome) {
	w.engine.count(o)
	err := w.errors.of(w.engine, o)
	if r.err == nil {
		r.err = err
	}
	r.n++
	r.bytes += messageSize(m)
	if w.cfg.OnError != nil {
		w.tell(m.Addr, err)
	}
}

// tell calls OnError. If that does not return, the goroutine that sends unlocks
// mu all the same.
func (w *Writer) tell(to netip.AddrPort, err error) {
	returned := false
	defer func() {
		if !returned {
			w.mu.Lock()
		}
	}()
	w.cfg.OnError(to, err)
	returned = true
}

// sendLoneLocked sends the datagram of a Writer that holds no other, without a
// copy of it unless it has to wait, and returns what the kernel says of it.
// What is written meanwhile is held, and comes after it. mu is held except for
// the sending itself.
func (w *Writer) sendLoneLocked(d *packet) error {
	w.beginLocked()
	w.held.count(d.size())
	self := w.held.accepted
	w.mu.Unlock()
	blocked, err := w.tryLone(d)
	w.mu.Lock()
	if blocked {
		w.held.takeLone(d, self)
		w.moveOnLocked(nil)
		w.due = max(w.due, self)
		w.sendLocked(false)
		return nil
	}
	w.held.finishLone(d.size(), self)
	w.moveOnLocked(nil)
	w.endSendingLocked()
	return err
}

// tryLone sends a datagram, or says why it cannot be sent, be it for an error
// that was pending, or that it has to wait.
func (w *Writer) tryLone(d *packet) (blocked bool, err error) {
	o, done := w.engine.pending.take(), true
	switch {
	case o.err != nil:
	case len(d.control) == 0:
		var err error
		if done, err = w.engine.single(nil, d.payload, d.to, 0); err != nil {
			o = rejected(err, d.to)
		}
	default:
		b := newOutBatch()
		defer b.free()
		b.vector[0] = d.payload
		b.one[0] = OutputMessage{Addr: d.to, Vectors: b.vector[:], Control: d.control}
		_, o = w.engine.transmit(nil, b, b.one[:], 0, false)
		done = o.err == nil || o.ofMessage || o.pending
	}
	if !done {
		return true, nil
	}
	return false, w.engine.report(o)
}

// abandonLocked reports all that is still held. mu is held except for the
// reporting itself.
func (w *Writer) abandonLocked() {
	w.beginLocked()
	closed := ended(net.ErrClosed)
	for w.takeLocked() {
		w.mu.Unlock()
		h := w.held.leaving
		h.arrange(false)
		var r sendResult
		for i := range h.rest {
			w.fail(&r, &h.rest[i], closed)
		}
		w.mu.Lock()
		w.held.finish(r.n, r.bytes)
		w.moveOnLocked(r.err)
	}
	w.endSendingLocked()
}

// yieldLocked lets the goroutine that sends go on, once each time that
// something has left. A goroutine that comes back from a call to the kernel may
// find its processor taken, and the taker writes on and on, for ten
// milliseconds at a time, without ever having to wait. mu is held before and
// after.
func (w *Writer) yieldLocked(late int64) {
	if w.yielded == w.moves || late < int64(flusherLate) {
		return
	}
	w.yielded = w.moves
	w.mu.Unlock()
	runtime.Gosched()
	w.mu.Lock()
}

// armTimerLocked has the flusher started when what is held was held long
// enough. mu is held.
func (w *Writer) armTimerLocked(d time.Duration) {
	if w.held.filling.len() > 1 {
		return // armed by the first
	}
	if w.timer == nil {
		w.timer = time.AfterFunc(d, w.flushInTime)
	} else {
		w.timer.Reset(d)
	}
}

func (w *Writer) flushInTime() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if sinceStart()-w.held.oldest < int64(w.cfg.MaxDelay) {
		return // it was late, and for others: these have a timer of their own
	}
	w.due = w.held.accepted
	if !w.turn.busy() {
		w.sendLocked(true)
	}
}
