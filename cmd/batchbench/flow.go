// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package main

// windowSize is how many sequence numbers back a duplicate is told from a late
// datagram.
const windowSize = 1 << 16

// A tally counts what arrived.
type tally struct {
	arrived    uint64 // intact, and for the first time
	bytes      uint64 // of those
	reordered  uint64 // of those, after one that was sent later
	damaged    uint64 // content, length, or receiver is wrong
	duplicated uint64 // intact, but here before
}

func (t *tally) add(u tally) {
	t.arrived += u.arrived
	t.bytes += u.bytes
	t.reordered += u.reordered
	t.damaged += u.damaged
	t.duplicated += u.duplicated
}

// A flow is what one sender sends to one receiver in one run.
type flow struct {
	arrived uint64
	first   uint64 // lowest sequence seen
	next    uint64 // one more than the highest
	seen    [windowSize / 64]uint64
}

// note counts an intact datagram in t.
func (f *flow) note(sequence uint64, bytes int, t *tally) {
	late := sequence < f.next
	if late && (f.next-sequence > windowSize || f.has(sequence)) {
		t.duplicated++
		return
	}
	if late {
		t.reordered++
	} else {
		f.advance(sequence)
	}
	if f.arrived == 0 || sequence < f.first {
		f.first = sequence
	}
	f.seen[sequence/64%uint64(len(f.seen))] |= 1 << (sequence % 64)
	f.arrived++
	t.arrived++
	t.bytes += uint64(bytes)
}

func (f *flow) has(sequence uint64) bool {
	return f.seen[sequence/64%uint64(len(f.seen))]&(1<<(sequence%64)) != 0
}

// advance makes sequence the highest, and forgets what leaves the window.
func (f *flow) advance(sequence uint64) {
	if sequence-f.next >= windowSize {
		clear(f.seen[:])
	} else {
		for s := f.next; s <= sequence; s++ {
			f.seen[s/64%uint64(len(f.seen))] &^= 1 << (s % 64)
		}
	}
	f.next = sequence + 1
}

// atLeast counts what arrived with this sequence number or a higher one, in
// the window.
func (f *flow) atLeast(sequence uint64) (n uint64) {
	if f.next > windowSize {
		sequence = max(sequence, f.next-windowSize)
	}
	for ; sequence < f.next; sequence++ {
		if f.has(sequence) {
			n++
		}
	}
	return n
}

// lost is how many are missing between the first and the last that arrived.
func (f *flow) lost() uint64 { return f.next - f.first - f.arrived }
