// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"errors"
	"slices"
	"syscall"
	"testing"
)

// TestPayloadOverflow: vectors that share memory can add up to more than an int
// of 32 bits holds. That is a message too long, and not one of few bytes.
func TestPayloadOverflow(t *testing.T) {
	mega := make([]byte, 1<<20)
	for _, m := range []OutputMessage{
		{Vectors: slices.Repeat([]OutputVector{mega}, 4096)},                   // 2^32
		{Vectors: slices.Repeat([]OutputVector{mega}, 3000)},                   // below 0
		{Vectors: append(slices.Repeat([]OutputVector{mega}, 4096), mega[:9])}, // 9
		{Vectors: []OutputVector{mega}},
	} {
		if n := m.payload(); n <= maxDatagram {
			t.Errorf("%d vectors of 1 MiB: payload %d", len(m.Vectors), n)
		}
		if r := (segmentLimits{segments: maxSegments}).run([]OutputMessage{m, m}); r.n != 1 {
			t.Errorf("%d vectors of 1 MiB: a run of %d", len(m.Vectors), r.n)
		}
	}
	w := plainKind.world(t, 1, nil)
	m := OutputMessage{Addr: w.dest[0], Vectors: slices.Repeat([]OutputVector{mega}, 3000)}
	if n, err := w.conn.SendMessages(nil, []OutputMessage{m, m}, 0); n != 0 || !errors.Is(err, syscall.EMSGSIZE) {
		t.Errorf("SendMessages = %d, %v", n, err)
	}
}
