// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package harness

// A Mailbag is the buffers that datagrams are read into. Several sockets that
// are read in turn may share one.
type Mailbag struct {
	Buffers [][]byte
	Lengths []int // of what was read; at most that of the buffer

	calls batchCall
}

// NewMailbag holds n datagrams of up to size bytes. A buffer has a byte more,
// which shows a longer one. A reader that has buffers of its own may put those
// in their place.
func NewMailbag(n, size int) *Mailbag {
	m := &Mailbag{Buffers: make([][]byte, n), Lengths: make([]int, n)}
	each := size + 1
	all := make([]byte, n*each)
	for i := range m.Buffers {
		m.Buffers[i] = all[i*each:][:each:each]
	}
	m.calls.prepare(m.Buffers)
	return m
}

// Datagram is what was read into buffer i.
func (m *Mailbag) Datagram(i int) []byte { return m.Buffers[i][:m.Lengths[i]] }
