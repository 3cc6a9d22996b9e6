// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
)

// What a Writer holds, and the order in which it leaves.

// A packet is what one write gives.
type packet struct {
	payload, control []byte
	to               netip.AddrPort
}

func (d *packet) size() int { return len(d.payload) + len(d.control) }

// A holding is what a Writer has accepted and not finished, in two parts:
// writes add to one while the other leaves. The Writer's lock guards it, except
// for the part that leaves, which is the sending goroutine's.
type holding struct {
	maxMessages, maxBytes int

	filling *heldMessages // what writes add to; nil if that is nothing
	leaving *heldMessages // what is being sent; nil if that is nothing

	messages int    // in both, and a lone datagram on its way
	bytes    int    // likewise
	accepted uint64 // datagrams ever accepted
	finished uint64 // the first of them, up to here, were sent or reported
	oldest   int64  // since epoch: when the first of filling was accepted

	spares []*heldMessages // empty ones that are too large for the pool
}

// get takes what nothing is held in.
func (h *holding) get() *heldMessages {
	if last := len(h.spares) - 1; last >= 0 {
		m := h.spares[last]
		h.spares = h.spares[:last]
		return m
	}
	return heldPool.Get().(*heldMessages)
}

// put empties m for the next get: of any Writer, unless it has grown beyond
// what the default limits make of it.
func (h *holding) put(m *heldMessages) {
	m.reset()
	if cap(m.buf) > maxPooledBuffer || cap(m.msgs) > maxPooledMessages {
		h.spares = append(h.spares, m)
		return
	}
	heldPool.Put(m)
}

// fits reports whether there is room for a datagram: for one larger than
// maxBytes only alone.
func (h *holding) fits(size int) bool {
	return h.messages == 0 || h.messages < h.maxMessages && h.bytes+size <= h.maxBytes
}

// count counts a datagram as accepted.
func (h *holding) count(size int) {
	h.messages++
	h.bytes += size
	h.accepted++
}

// add copies a datagram that was counted.
func (h *holding) add(d *packet, now int64) {
	if h.filling == nil {
		h.filling = h.get()
		h.oldest = now
	}
	h.filling.add(d, h.maxBytes)
}

// newer is how many datagrams writes have added since the others began to
// leave.
func (h *holding) newer() int {
	if h.filling == nil {
		return 0
	}
	return h.filling.len()
}

// take makes sure that there is something in the part that leaves. fresh says
// that it is what was filling until now.
func (h *holding) take() (some, fresh bool) {
	if h.leaving != nil {
		return true, false
	}
	if h.filling == nil {
		return false, false
	}
	h.leaving, h.filling = h.filling, nil
	h.leaving.depart(h.accepted)
	return true, true
}

// takeLone makes a datagram that could not leave alone the part that leaves: it
// comes before what was accepted meanwhile. last is its number.
func (h *holding) takeLone(d *packet, last uint64) {
	h.leaving = h.get()
	h.leaving.add(d, h.maxBytes)
	h.leaving.depart(last)
}

// finishLone gives back the room of a datagram that left alone. last is its
// number.
func (h *holding) finishLone(size int, last uint64) {
	h.messages--
	h.bytes -= size
	h.finished = last
}

// finish gives back the room of the first n messages, of so many bytes, of the
// part that leaves.
func (h *holding) finish(n, bytes int) {
	h.messages -= n
	h.bytes -= bytes
	left := h.leaving
	if left.rest = left.rest[n:]; len(left.rest) == 0 {
		h.finished = left.last
		h.leaving = nil
		h.put(left)
	}
}

// heldMessages are copies of datagrams, in order of arrival.
type heldMessages struct {
	msgs    []OutputMessage // Vectors of msgs[i] is vectors[i:i+1], also of those beyond len(msgs)
	vectors [][]byte
	buf     []byte // payloads and control data
	several bool   // msgs have several destinations

	last     uint64          // the number of the last of these among all that were accepted
	rest     []OutputMessage // still to be sent, in the order of sending once arranged
	arranged bool
	outgrown bool // vectors refer to a buffer that was too small
	controls bool // some of msgs have control data
	flows    flowTable
}

// heldPool is there so that an idle Writer keeps no buffers.
var heldPool = sync.Pool{New: func() any { return new(heldMessages) }}

const (
	minHeldBuffer = 64 << 10 // the first buffer

	// What is larger stays with its Writer, whose limits are above the default.
	maxPooledBuffer   = defaultMaxBytes + minHeldBuffer
	maxPooledMessages = 2 * defaultMaxMessages
)

func (h *heldMessages) len() int { return len(h.msgs) }

// add copies a datagram. A buffer that is too small is left to what lies in it,
// and the next is twice as large, up to capacity: a Writer within its bounds
// never needs more, except for one datagram that is larger and alone.
func (h *heldMessages) add(d *packet, capacity int) {
	need := d.size()
	if need > cap(h.buf)-len(h.buf) {
		h.outgrown = true
		h.buf = make([]byte, 0, max(need, min(capacity, max(2*cap(h.buf), minHeldBuffer))))
	}
	n := len(h.msgs)
	if n == cap(h.msgs) {
		h.grow()
	}
	h.msgs = h.msgs[:n+1]
	m := &h.msgs[n]
	m.Addr = d.to
	h.several = h.several || d.to != h.msgs[0].Addr
	start := len(h.buf)
	h.buf = append(h.buf, d.payload...)
	end := len(h.buf)
	m.Vectors[0] = h.buf[start:end] // its capacity runs on, by which putRun knows its neighbour
	if len(d.control) > 0 {
		h.buf = append(h.buf, d.control...)
		m.Control = h.buf[end:len(h.buf):len(h.buf)]
		h.controls = true
	}
}

// minHeld is for how many datagrams there is place at first.
const minHeld = 64

// grow makes place for as many more datagrams as there are.
func (h *heldMessages) grow() {
	n := len(h.msgs)
	h.vectors = slices.Grow(h.vectors[:n], max(n, minHeld))
	h.vectors = h.vectors[:cap(h.vectors)]
	msgs := make([]OutputMessage, len(h.vectors))
	copy(msgs, h.msgs)
	for i := range msgs {
		msgs[i].Vectors = h.vectors[i : i+1 : i+1]
	}
	h.msgs = msgs[:n]
}

// depart readies the messages for leaving; last is the number of the last one.
// Only when all of them are finished are those up to there, since their order
// is not that of writing.
func (h *heldMessages) depart(last uint64) {
	h.rest, h.arranged, h.last = h.msgs, false, last
}

func (h *heldMessages) reset() {
	if h.outgrown {
		clear(h.vectors)
		clear(h.flows.order[:cap(h.flows.order)])
	}
	if h.outgrown || h.controls {
		for i := range h.msgs {
			h.msgs[i].Control = nil
		}
	}
	h.outgrown, h.controls, h.several = false, false, false
	h.msgs, h.buf, h.rest = h.msgs[:0], h.buf[:0], nil
}

// arrange readies the order of sending: messages to one destination together if
// they are to be segmented.
func (h *heldMessages) arrange(group bool) {
	if h.arranged {
		return
	}
	h.rest = h.msgs
	if group && h.several {
		h.rest = h.flows.arrange(h.msgs)
	}
	h.arranged = true
}

// maxTurn is how many datagrams go to one destination before it is the others'
// turn.
const maxTurn = maxSegments

// A flowTable puts messages together by destination. Its arrays are reused.
type flowTable struct {
	index []int32 // a hash table: 1 + which of flows, or 0
	flows []flow
	next  []int // next[i] is the message after msgs[i] to the same destination, or -1
	order []OutputMessage
}

// A flow is a list of the messages to one destination: an address as it was
// given, except that ::ffff:a.b.c.d is a.b.c.d.
type flow struct {
	to          netip.AddrPort
	first, last int
}

// arrange returns msgs in an order in which destinations, in the order of their
// first message, take turns of maxTurn messages.
func (t *flowTable) arrange(msgs []OutputMessage) []OutputMessage {
	t.link(msgs)
	if len(t.flows) == len(msgs) {
		return msgs
	}
	t.order = t.order[:0]
	for left := t.flows; len(left) > 0; {
		again := left[:0]
		for _, f := range left {
			for n := 0; n < maxTurn && f.first >= 0; n++ {
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
	size := 1 << bits.Len(uint(2*len(msgs)))
	if len(t.index) != size {
		t.index = slices.Grow(t.index[:0], size)[:size]
	}
	clear(t.index)
	t.flows, t.next = t.flows[:0], t.next[:0]
	for i := range msgs {
		t.next = append(t.next, -1)
		to := netip.AddrPortFrom(msgs[i].Addr.Addr().Unmap(), msgs[i].Addr.Port())
		f := t.find(to)
		if *f == 0 {
			t.flows = append(t.flows, flow{to, i, i})
			*f = int32(len(t.flows))
			continue
		}
		last := &t.flows[*f-1].last
		t.next[*last] = i
		*last = i
	}
}

// find returns where in the index a destination is, or is to be.
func (t *flowTable) find(to netip.AddrPort) *int32 {
	for i := hash(to); ; i++ {
		f := &t.index[i&uint(len(t.index)-1)]
		if *f == 0 || t.flows[*f-1].to == to {
			return f
		}
	}
}

// hashSeed keeps those who choose their addresses from choosing them so that
// all hash alike.
var hashSeed = [2]uint64{rand.Uint64(), rand.Uint64()}

func hash(to netip.AddrPort) uint {
	a := to.Addr().As16()
	hi, lo := bits.Mul64(binary.LittleEndian.Uint64(a[:])^hashSeed[0], binary.LittleEndian.Uint64(a[8:])^hashSeed[1])
	hi, lo = bits.Mul64(hi^lo^uint64(to.Port()), hashSeed[1]|1)
	return uint(hi ^ lo)
}
