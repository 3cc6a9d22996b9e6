// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"bytes"
	"testing"
)

// FuzzCut: a message is cut into datagrams that make it up, all of the stride
// but the last, which is not longer and, if there are several, not empty.
func FuzzCut(f *testing.F) {
	for _, c := range [][2]int{{0, 0}, {0, 5}, {1, 0}, {5, 5}, {6, 5}, {10, 5}, {5, 6}, {64000, 500}, {65535, 1}, {100, -1}} {
		f.Add(c[0], c[1])
	}
	f.Fuzz(func(t *testing.T, length, stride int) {
		payload := contents(1, max(length, 0)%(1<<16))
		var m coalesced
		m.init(payload, stride)
		single := stride <= 0 || stride >= len(payload)
		if m.run == single || single != (m.left == 1) {
			t.Fatalf("%d bytes with stride %d: %d datagrams, run %v", len(payload), stride, m.left, m.run)
		}
		var all []byte
		for n := m.left; n > 0; n-- {
			d := m.first()
			if m.left != n || !single && (len(d) > stride || n > 1 && len(d) != stride || len(d) == 0) {
				t.Fatalf("%d bytes with stride %d: a datagram of %d with %d left", len(payload), stride, len(d), m.left)
			}
			all = append(all, d...)
			m.drop()
		}
		if m.left != 0 || len(m.payload) != 0 || !bytes.Equal(all, payload) {
			t.Fatalf("%d bytes with stride %d: %d are left", len(payload), stride, len(m.payload))
		}
	})
}
