// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"time"
)

// What a Writer holds is in two parts: writes add to one while the other
// leaves. Only one goroutine at a time sends, so that order is kept: whoever
// sets sending. A write, Flush and Close send without waiting and leave what
// finds no room to the flusher.

// send sends what is due, with mu held but for the sending itself. Without
// wait it ends when the socket is full, or when one part has left: a write
// shall not send for others for ever.
func (w *Writer) send(wait bool) {
	w.sending = true
	var r sendResult
	for more := true; more && w.finished < w.due && w.take(); {
		w.mu.Unlock()
		r = w.sendSome(wait)
		w.mu.Lock()
		w.finish(r)
		more = !r.blocked && (wait || len(w.leaving.rest) > 0)
	}
	if r.blocked && w.ctx.Err() == nil {
		w.handOver()
		return
	}
	w.stopSending()
}

// sendAlone sends the datagram of a Writer that holds no other, without a copy
// of it unless it has to wait. What is written meanwhile is held, and comes after
// it.
func (w *Writer) sendAlone(p, control []byte, to netip.AddrPort) {
	w.sending = true
	self := w.accepted
	w.mu.Unlock()
	r, done := w.tryAlone(p, control, to)
	w.mu.Lock()
	if done {
		w.settle(r)
		w.finished = self
		w.stopSending()
	} else {
		w.leaving.add(p, control, to, w.cfg.MaxBytes)
		w.leave(self)
		w.due = max(w.due, self)
		w.send(false)
	}
	w.newest = int64(time.Since(epoch)) // the time it took is no idleness
}

// tryAlone sends or reports a datagram, or does nothing.
func (w *Writer) tryAlone(p, control []byte, to netip.AddrPort) (r sendResult, done bool) {
	if len(control) > 0 {
		return r, false
	}
	o, done := w.writerConn.send.single(nil, p, to, 0)
	if !done {
		return r, false
	}
	r.bytes = len(p)
	if o.err != nil {
		w.fail(&r, to, o)
	} else {
		r.n = 1
	}
	return r, true
}

// stopSending leaves what has come due meanwhile to the flusher.
func (w *Writer) stopSending() {
	w.sending = false
	w.wakeAll()
	if w.finished < w.due && w.ctx.Err() == nil {
		w.startFlusher()
	}
}

// handOver leaves the sending to the flusher, who waits for room. Until then
// nobody sends: each would find the socket full, and the flusher them at it.
func (w *Writer) handOver() {
	w.handed = true
	if !w.scheduled {
		w.scheduled = true
		go w.run()
	}
}

// take makes sure that there is something in the part that leaves.
func (w *Writer) take() bool {
	if len(w.leaving.rest) > 0 {
		return true
	}
	if w.filling.empty() {
		return false
	}
	w.leaving, w.filling = w.filling, w.leaving
	w.leave(w.accepted)
	if w.timer != nil {
		w.timer.Stop() // it was for these
	}
	return true
}

// leave readies the part that leaves, which ends with the datagram of that
// number: only when all of it is finished are those up to there, since its order
// is not that of writing.
func (w *Writer) leave(last uint64) {
	w.leaving.rest, w.leaving.arranged, w.leaving.last = w.leaving.msgs, false, last
}

// A sendResult is what became of the first messages of the part that leaves.
type sendResult struct {
	n, bytes int   // sent or reported
	err      error // the first of those reported
	blocked  bool  // the rest has to wait
}

// sendSome sends up to a chunk of the part that leaves.
func (w *Writer) sendSome(wait bool) (r sendResult) {
	if !w.leaving.arranged {
		w.leaving.arrange(w.writerConn.send.gso.limits(0).segments > 1)
	}
	var ctx context.Context
	if wait {
		ctx = w.ctx
	}
	b := newOutBatch()
	chunk := w.leaving.rest[:min(len(w.leaving.rest), sendChunk)]
	for r.n < len(chunk) && !r.blocked {
		n, o := w.writerConn.send.transmit(ctx, b, chunk[r.n:], 0, wait)
		r.n += n
		switch {
		case o.err == nil:
		case o.ofMessage:
			w.fail(&r, chunk[r.n].Addr, o)
		case o.pending: // of no message here
			if r.err == nil {
				r.err = w.writerConn.send.report(o)
			}
		case errors.Is(o.err, ErrWouldBlock), wait && w.ctx.Err() != nil:
			r.blocked = true
		default: // somebody closed the Conn behind our back, or set its deadline
			for r.n < len(chunk) {
				w.fail(&r, chunk[r.n].Addr, o)
			}
		}
	}
	b.free()
	for i := range chunk[:r.n] {
		r.bytes += chunk[i].payload() + len(chunk[i].Control)
	}
	return r
}

// fail reports the message after the first r.n.
func (w *Writer) fail(r *sendResult, to netip.AddrPort, o outcome) {
	err := w.writerConn.send.report(o)
	if r.err == nil {
		r.err = err
	}
	r.n++
	if w.cfg.OnError != nil {
		w.tell(to, err)
	}
}

// tell calls OnError. If that does not return, who sends unlocks mu all the same.
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

// finish gives back the room of what was sent or reported of the part that leaves.
func (w *Writer) finish(r sendResult) {
	w.settle(r)
	w.leaving.rest = w.leaving.rest[r.n:]
	if len(w.leaving.rest) == 0 {
		w.finished = w.leaving.last
		w.leaving.reset()
	}
	w.wakeAll()
}

// settle counts what was sent or reported, and keeps the first error.
func (w *Writer) settle(r sendResult) {
	w.yielded = false
	w.messages -= r.n
	w.bytes -= r.bytes
	if w.firstErr == nil {
		w.firstErr = r.err
	}
}

// abandon reports all that is still held.
func (w *Writer) abandon() {
	w.sending = true
	for w.take() {
		w.mu.Unlock()
		if !w.leaving.arranged {
			w.leaving.arrange(false)
		}
		var r sendResult
		closed := ended(net.ErrClosed)
		for i := range w.leaving.rest {
			m := &w.leaving.rest[i]
			r.bytes += m.payload() + len(m.Control)
			w.fail(&r, m.Addr, closed)
		}
		w.mu.Lock()
		w.finish(r)
	}
	w.sending = false
}

// waitForRoom returns when a datagram of size bytes fits, or says why it will
// not be taken. The next room is for who has waited in vain, and of these for
// the one who came first: who needs much room would else wait for as long as
// others come who need little.
func (w *Writer) waitForRoom(size int) error {
	w.waits++
	self := w.waits
	defer w.cede(self)
	for waited := false; !w.closed && !w.hasRoom(size, self); waited = true {
		w.due = w.accepted
		if !w.sending {
			if w.send(false); w.closed || w.hasRoom(size, self) {
				break
			}
			w.due = w.accepted // as much may have come meanwhile as has left
			w.startFlusher()
		}
		if w.writerConn.send.nonBlocking {
			w.writerConn.send.counters.wouldBlock.Add(1)
			return ErrWouldBlock
		}
		if waited && (w.reserved == 0 || self < w.reserved) {
			w.reserved = self
		}
		if err := w.wait(nil); err != nil {
			return err
		}
	}
	if w.closed {
		return net.ErrClosed
	}
	return nil
}

// cede ends a reservation.
func (w *Writer) cede(self uint64) {
	if w.reserved == self {
		w.reserved = 0
		w.wakeAll()
	}
}

// hasRoom reports whether a datagram may be taken from a write that waits under
// this number, or 0.
func (w *Writer) hasRoom(size int, self uint64) bool {
	return (w.reserved == 0 || w.reserved == self) && w.fits(size)
}

// fits reports whether a datagram may be taken: one larger than MaxBytes only
// alone.
func (w *Writer) fits(size int) bool {
	return w.messages == 0 || w.messages < w.cfg.MaxMessages && w.bytes+size <= w.cfg.MaxBytes
}

// wait returns nil when something has changed since, with mu held before and
// after.
func (w *Writer) wait(ctx context.Context) error {
	var expired <-chan time.Time
	if w.deadline != 0 {
		left := time.Duration(w.deadline) - time.Since(epoch)
		if left <= 0 {
			return os.ErrDeadlineExceeded
		}
		timer := time.NewTimer(left)
		defer timer.Stop()
		expired = timer.C
	}
	w.park(ctx, expired)
	return nil
}

// park returns when something has changed, the context is done or a timer
// expired, which it reports.
func (w *Writer) park(ctx context.Context, timer <-chan time.Time) (expired bool) {
	var cancelled <-chan struct{}
	if ctx != nil {
		cancelled = ctx.Done()
	}
	p := waiters.Get().(*waiter)
	w.waiters = append(w.waiters, p)
	w.mu.Unlock()
	select {
	case <-p.woken:
	case <-cancelled:
	case <-timer:
		expired = true
	}
	w.mu.Lock()
	w.forget(p)
	return expired
}

// forget takes p off the list, if nobody has woken it, and back to the pool.
func (w *Writer) forget(p *waiter) {
	for i, q := range w.waiters {
		if q == p {
			w.waiters = append(w.waiters[:i], w.waiters[i+1:]...)
			break
		}
	}
	select {
	case <-p.woken:
	default:
	}
	waiters.Put(p)
}

func (w *Writer) wakeAll() {
	for _, p := range w.waiters {
		p.woken <- true // it has place for the one that each waiter gets
	}
	clear(w.waiters)
	w.waiters = w.waiters[:0]
}

// heldMessages are copies of datagrams, in order of arrival.
type heldMessages struct {
	msgs    []OutputMessage
	vectors [][]byte // vectors[i] is all of msgs[i]
	buf     []byte   // payloads and control data

	last     uint64          // how many datagrams the Writer had taken with the last of these
	rest     []OutputMessage // still to be sent, in the order of sending once arranged
	arranged bool
	outgrown bool // msgs and vectors refer to a buffer that was too small
	flows    flowTable
}

func (h *heldMessages) empty() bool { return len(h.msgs) == 0 }
func (h *heldMessages) len() int    { return len(h.msgs) }

// leastBuffer is the least that is allocated for what is held.
const leastBuffer = 64 << 10

// add copies a datagram. A buffer that is too small is left to what lies in it,
// and the next is twice as large, up to capacity: a Writer that is kept within
// bounds never needs more, but for one datagram that is larger and alone.
func (h *heldMessages) add(p, control []byte, to netip.AddrPort, capacity int) {
	need := len(p) + len(control)
	if need > cap(h.buf)-len(h.buf) {
		h.outgrown = true
		h.buf = make([]byte, 0, max(need, min(capacity, max(2*cap(h.buf), leastBuffer))))
	}
	start := len(h.buf)
	h.buf = append(append(h.buf, p...), control...)
	end := start + len(p)
	m := OutputMessage{Addr: to}
	if len(control) > 0 {
		m.Control = h.buf[end:len(h.buf):len(h.buf)]
	}
	h.msgs = append(h.msgs, m)
	h.vectors = append(h.vectors, h.buf[start:end]) // its capacity runs on, by which putRun knows its neighbour
}

func (h *heldMessages) reset() {
	if h.outgrown {
		clear(h.msgs[:cap(h.msgs)])
		clear(h.vectors[:cap(h.vectors)])
		clear(h.flows.order[:cap(h.flows.order)])
		h.outgrown = false
	}
	h.msgs, h.vectors, h.buf, h.rest = h.msgs[:0], h.vectors[:0], h.buf[:0], nil
}

// arrange readies the messages for sending, those to one destination together
// if they are to be segmented.
func (h *heldMessages) arrange(group bool) {
	for i := range h.msgs {
		h.msgs[i].Vectors = h.vectors[i : i+1 : i+1]
	}
	h.rest = h.msgs
	if group && h.severalFlows() {
		h.rest = h.flows.arrange(h.msgs)
	}
	h.arranged = true
}

func (h *heldMessages) severalFlows() bool {
	for i := range h.msgs {
		if h.msgs[i].Addr != h.msgs[0].Addr {
			return true
		}
	}
	return false
}

// A flowTable puts messages together by destination. Its arrays are reused.
type flowTable struct {
	index map[netip.AddrPort]int // into flows
	flows []flow
	next  []int // next[i] is the message after msgs[i] to the same destination, or -1
	order []OutputMessage
}

// A flow is a list of the messages to one destination.
type flow struct{ first, last int }

// arrange returns msgs in an order in which destinations, in the order of their
// first message, take turns of turnLength messages.
func (t *flowTable) arrange(msgs []OutputMessage) []OutputMessage {
	t.link(msgs)
	t.order = t.order[:0]
	for left := t.flows; len(left) > 0; {
		again := left[:0]
		for _, f := range left {
			for n := 0; n < turnLength && f.first >= 0; n++ {
				t.order = append(t.order, msgs[f.first])
				f.first = t.next[f.first]
			}
			if f.first >= 0 {
				again = append(again, f)
			}
		}
		left = again
	}
	return t.order
}

// link makes a flow for each destination.
func (t *flowTable) link(msgs []OutputMessage) {
	if t.index == nil {
		t.index = make(map[netip.AddrPort]int)
	}
	clear(t.index)
	t.flows, t.next = t.flows[:0], t.next[:0]
	for i := range msgs {
		t.next = append(t.next, -1)
		to := netip.AddrPortFrom(msgs[i].Addr.Addr().Unmap(), msgs[i].Addr.Port())
		f, ok := t.index[to]
		if !ok {
			t.index[to] = len(t.flows)
			t.flows = append(t.flows, flow{i, i})
			continue
		}
		t.next[t.flows[f].last] = i
		t.flows[f].last = i
	}
}
