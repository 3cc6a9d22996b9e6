// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"errors"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/net/ipv4"
)

// TestKeptAtChunkEdge: an error that another sender keeps while WriteBatch is
// between two of its chunks is still the next send's.
func TestKeptAtChunkEdge(t *testing.T) {
	var w *world
	left := 2 * maxDatagrams
	w, _ = scripted(t, connectedKind, func(_ int, ms []ipv4.Message) (int, error) {
		if left -= len(ms); left == maxDatagrams {
			w.conn.send.keep(rejected(syscall.ECONNREFUSED, w.dest[0]))
		}
		return len(ms), nil
	})
	ms := slices.Repeat([]ipv4.Message{{Buffers: [][]byte{{1}}}}, left)
	if n, err := w.conn.WriteBatch(ms, 0); n != maxDatagrams || err != nil {
		t.Fatalf("WriteBatch = %d, %v", n, err)
	}
	if n, err := w.conn.WriteBatch(ms[maxDatagrams:], 0); n != 0 || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the rest: %d, %v; want the error that was kept", n, err)
	}
	if n, err := w.conn.WriteBatch(ms[maxDatagrams:], 0); n != maxDatagrams || err != nil {
		t.Errorf("again: %d, %v", n, err)
	}
}

// TestAdoptedHoldsNothing: of WriteBatch's messages nothing stays in a pooled
// batch, though its last chunk was the smallest.
func TestAdoptedHoldsNothing(t *testing.T) {
	b := new(outBatch)
	ms := slices.Repeat([]ipv4.Message{{Buffers: [][]byte{{1}}, OOB: []byte{2}}}, 10)
	b.adopt(ms)
	b.adopt(ms[:1])
	b.free()
	for i, m := range b.adopted[:cap(b.adopted)] {
		if m.Vectors != nil || m.Control != nil {
			t.Errorf("message %d is still held", i)
		}
	}
}
