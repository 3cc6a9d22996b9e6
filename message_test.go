// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"bytes"
	"errors"
	"math"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"unsafe"
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

// segments describes a call of AppendSegments and what it makes.
type segments struct {
	n, size int
	want    []int
}

func TestAppendSegments(t *testing.T) {
	to := netip.MustParseAddrPort("127.0.0.1:9")
	control := []byte("control")
	var dst []OutputMessage
	for _, s := range []segments{
		{0, 10, nil}, {0, 0, nil}, {1, 10, []int{1}}, {10, 10, []int{10}}, {11, 10, []int{10, 1}}, {30, 10, []int{10, 10, 10}},
		{39, 10, []int{10, 10, 10, 9}}, {5, 1, []int{1, 1, 1, 1, 1}}, {7, 0, []int{7}}, {7, -1, []int{7}}, {7, math.MaxInt, []int{7}},
	} {
		p := contents(s.n, s.n)
		kept := OutputMessage{Addr: to, BytesSent: 77}
		dst = append(dst[:0], kept)
		for i := range dst[:cap(dst)] {
			dst[:cap(dst)][i].BytesSent = 77
		}
		dst = AppendSegments(dst, to, p, s.size, control)
		if len(dst) != 1+len(s.want) || dst[0].BytesSent != 77 {
			t.Fatalf("%+v: %d messages", s, len(dst)-1)
		}
		at := 0
		for i, m := range dst[1:] {
			v := m.Vectors[0]
			if len(m.Vectors) != 1 || len(v) != s.want[i] || !bytes.Equal(v, p[at:at+len(v)]) {
				t.Errorf("%+v: message %d is %d vectors, %d bytes of %d", s, i, len(m.Vectors), len(v), cap(v))
			}
			if unsafe.SliceData(v) != &p[at] {
				t.Errorf("%+v: message %d does not alias p", s, i)
			}
			if m.Addr != to || string(m.Control) != "control" || m.BytesSent != 0 {
				t.Errorf("%+v: message %d is %+v", s, i, m)
			}
			at += len(v)
		}
		if at != s.n {
			t.Errorf("%+v: %d bytes", s, at)
		}
	}
}

// TestAppendSegmentsReuses: elements beyond the length and their vectors'
// arrays are used again.
func TestAppendSegmentsReuses(t *testing.T) {
	to := netip.MustParseAddrPort("127.0.0.1:9")
	dst := AppendSegments(nil, to, make([]byte, 1000), 100, nil)
	array, vectors := &dst[0], &dst[3].Vectors[0]
	dst = AppendSegments(dst[:0], to, make([]byte, 900), 100, nil)
	if len(dst) != 9 || &dst[0] != array || &dst[3].Vectors[0] != vectors {
		t.Error("the arrays were not used again")
	}
}

func TestAppendSegmentsSent(t *testing.T) {
	forEachKind(t, 3, nil, func(t *testing.T, w *world) {
		var msgs []OutputMessage
		var want [][]byte
		for i, to := range w.dest {
			p := contents(i, 5000)
			msgs = AppendSegments(msgs[:0], to, p, 120, nil)
			if n, err := w.conn.SendMessages(nil, msgs, 0); n != len(msgs) || err != nil {
				t.Fatalf("%d, %v", n, err)
			}
			want = want[:0]
			for j := 0; j < len(p); j += 120 {
				want = append(want, p[j:min(len(p), j+120)])
			}
			w.inboxes[i].expect(t, want)
		}
	})
}
