// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux && !android && !batchconn_portable

package batchconn

import (
	"slices"
	"testing"

	"golang.org/x/net/ipv4"

	"github.com/batchconn/batchconn/internal/sys"
)

// TestPooledBatch: what a batch keeps in its pool is bounded, whatever was sent
// with it, and holds nothing of the user's.
func TestPooledBatch(t *testing.T) {
	p := &plan{
		to:       &destinations{family: &adapterV4{}},
		limits:   segmentLimits{segments: maxSegments},
		refusals: new(refusals),
	}
	repeat := func(n int, m OutputMessage) []OutputMessage {
		m.Addr = peer
		return slices.Repeat([]OutputMessage{m}, n)
	}
	apart := vectorsOf(600, 500) // those that adjoin would become one
	slices.Reverse(apart)
	b := new(outBatch)
	fills := []struct {
		name   string
		msgs   []OutputMessage
		filled func() bool // that the batch became as large as it can
	}{
		{"runs of many vectors", repeat(maxDatagrams, OutputMessage{Vectors: apart}),
			func() bool { return len(b.vectors) >= maxBatchVectors }},
		{"flattened", repeat(maxDatagrams, OutputMessage{Vectors: vectorsOf(60_000, sys.MaxVectors+1)}),
			func() bool { return len(b.flat) > maxFlattened-60_000 }},
		{"runs with control messages", repeat(maxDatagrams, OutputMessage{Vectors: vectorsOf(30_000, 1), Control: slices.Repeat(tos(false), 10)}),
			func() bool { return b.tail == maxBatch }},
	}
	for _, f := range fills {
		if err := b.fill(p, f.msgs); err != nil || !f.filled() {
			t.Fatalf("%s: %v; %d messages, %d vectors, %d flattened bytes, %d of control messages",
				f.name, err, b.tail, len(b.vectors), len(b.flat), len(b.control))
		}
	}
	b.adopt(make([]ipv4.Message, 1<<14))
	b.free()
	checkPooled(t, b)
}

// checkPooled makes sure that a batch that was freed is small and empty.
func checkPooled(t *testing.T, b *outBatch) {
	t.Helper()
	if n := cap(b.flat); n > 3<<19 {
		t.Errorf("%d flattened bytes are kept", n)
	}
	if n := cap(b.vectors); n > 24<<10 {
		t.Errorf("%d vectors are kept", n)
	}
	if n := cap(b.control); n > 128<<10 {
		t.Errorf("%d bytes of control messages are kept", n)
	}
	if len(b.ms) > 256 || cap(b.adopted) > 2048 {
		t.Errorf("%d kernel messages, %d of WriteBatch's are kept", len(b.ms), cap(b.adopted))
	}
	for i, v := range b.vectors[:cap(b.vectors)] {
		if v != nil {
			t.Fatalf("vector %d is kept", i)
		}
	}
	for i := range b.ms {
		if m := &b.ms[i]; m.Buffers != nil || m.OOB != nil || m.Addr != nil {
			t.Fatalf("kernel message %d is kept", i)
		}
	}
	for i := range b.adopted[:cap(b.adopted)] {
		if m := &b.adopted[:cap(b.adopted)][i]; m.Vectors != nil || m.Control != nil {
			t.Fatalf("message %d of WriteBatch is kept", i)
		}
	}
}
