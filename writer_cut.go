// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"syscall"

	"github.com/batchconn/batchconn/internal/sys"
)

// Writes that their caller segments.
//
// A caller that adds UDP_SEGMENT itself, as quic-go does, goes without once
// such a write has failed. A Writer that holds the write has returned by then:
// it sends the datagrams plainly, and has the next such write fail.

// maxRefused bounds the destinations that are remembered. If one is forgotten,
// its next such write is sent plainly too, and remembered.
const maxRefused = 1024

// segmentSize is where the caller wants the kernel to cut, or 0.
func (d *packet) segmentSize() int {
	if len(d.control) == 0 {
		return 0
	}
	size, _, _ := sys.FindSegmentControl(d.control)
	return size
}

// isMany reports whether the kernel is to cut a datagram into several.
func (d *packet) isMany() bool {
	size := d.segmentSize()
	return size != 0 && len(d.payload) > size
}

// isSegmentRefusal reports whether err, of a message that its caller segments,
// may be about that. Then nothing of it has left (see isRefusal), except that
// where a route within the machine has the smaller MTU its shorter last segment
// may have: that one arrives twice.
func isSegmentRefusal(err error) bool {
	return errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EMSGSIZE)
}

// sendCut sends m, which the kernel has refused, in the pieces that its caller
// asked for, each plainly. It reports false if the refusal has nothing to do
// with that. Of what has to wait, m is the rest.
func (w *Writer) sendCut(ctx context.Context, b *outBatch, r *sendResult, m *OutputMessage, refusal outcome) bool {
	size, start, end := sys.FindSegmentControl(m.Control)
	payload := m.Vectors[0]
	if size == 0 || !isSegmentRefusal(refusal.err) {
		return false
	}
	others := slices.Delete(slices.Clone(m.Control), start, end)
	pieces := []OutputMessage{{Addr: m.Addr, Vectors: m.Vectors, Control: others}}
	if len(payload) > size {
		pieces = AppendSegments(nil, m.Addr, payload, size, others)
	}
	n, o := w.sendPieces(ctx, b, r, pieces)
	if n > 0 {
		w.rememberRefusal(m.Addr, w.engine.opError(refusal.err, m.Addr))
	}
	switch {
	case o.err == nil:
		r.n++
		r.bytes += messageSize(m)
		return true
	case o.pending:
		if r.err == nil {
			r.err = w.engine.report(o)
		}
	case errors.Is(o.err, ErrWouldBlock), ctx != nil && ctx.Err() != nil:
		r.blocked = true
	default:
		w.fail(r, m, o)
		return true
	}
	sent := min(n*size, len(payload))
	m.Vectors[0] = payload[sent:]
	r.bytes += sent
	return true
}

// sendPieces sends pieces, says how many left and what the next one met. On a
// connected socket that may have been pending: then it is of none of them.
func (w *Writer) sendPieces(ctx context.Context, b *outBatch, r *sendResult, pieces []OutputMessage) (sent int, o outcome) {
	var try secondTry
	for again := true; again; {
		var n int
		var pending outcome
		n, o = w.engine.transmit(ctx, b, pieces[sent:], 0, ctx != nil)
		sent += n
		again, pending = try.judge(w.engine, n, o)
		w.note(r, pending)
	}
	return sent, o
}

// rememberRefusal makes the next write to that address fail with err, if its
// caller segments it.
func (w *Writer) rememberRefusal(to netip.AddrPort, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refused == nil {
		w.refused = make(map[netip.AddrPort]error)
	}
	if len(w.refused) >= maxRefused {
		for other := range w.refused { // any
			delete(w.refused, other)
			break
		}
	}
	w.refused[to] = err
}

// takeRefusalLocked returns the error with which a write has to fail that its
// caller segments, once, or nil. mu is held.
func (w *Writer) takeRefusalLocked(d *packet) error {
	if len(w.refused) == 0 || w.closed || d.segmentSize() == 0 {
		return nil
	}
	err := w.refused[d.to]
	delete(w.refused, d.to)
	return err
}
