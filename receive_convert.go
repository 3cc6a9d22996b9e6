// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"net"
	"net/netip"
	"sync"
	"unsafe"

	"golang.org/x/net/ipv4"

	"github.com/batchconn/batchconn/internal/sys"
)

const (
	// maxAhead is how many kernel messages at most one call reads ahead, each of
	// blockSize bytes.
	maxAhead = 8

	// blockSize is room for any message of the kernel's: a smaller buffer would
	// lose the rest of a run.
	blockSize = 1 << 16

	// minPlain is how many datagrams a plain call asks for, if there is room and
	// few came of late: to make a message ready costs as much as a tenth of a
	// read, whether it is filled or not.
	minPlain = 8

	// maxPlain is how many datagrams at most one call receives straight into the
	// user's buffers.
	maxPlain = 64
)

// An inBatch holds messages of the kernel's from the call that received them
// until the last datagram in them is taken.
type inBatch struct {
	messages [maxAhead]coalesced
	at, n    int // messages[at:n] hold datagrams
	runs     bool
	next     *inBatch

	isCompact bool // made by compact, and has no blocks
	longRoom  bool // the last block is room for the control data of the only message

	in     sys.InMessages
	blocks [maxAhead][]byte
	rooms  [maxAhead][sys.ControlRoom]byte
}

// inBatches are shared by all Conns. What they hold is half a MiB at most, so a
// Conn has none unless it is reading, or something is held.
var inBatches = sync.Pool{New: func() any { return new(inBatch) }}

// ready makes n messages ready for the kernel. Message i goes into direct[i] as
// far as that goes, and then into a block.
func (b *inBatch) ready(n int, direct [][]byte) {
	b.in.Reset(n, 2*n)
	for i := range n {
		if i < len(direct) && len(direct[i]) < blockSize {
			b.in.AddTwo(direct[i], b.block(i)[len(direct[i]):], b.room(i))
		} else {
			b.in.AddOne(b.block(i), b.room(i))
		}
	}
}

// room is room for the control data of the i-th message.
func (b *inBatch) room(i int) []byte {
	if b.longRoom {
		return b.block(maxAhead - 1)
	}
	return b.rooms[i][:]
}

// readyAfter makes n messages ready for one datagram each: the first for p and
// control, the others for blocks.
func (b *inBatch) readyAfter(p, control []byte, n int) {
	b.in.Reset(n, n)
	b.in.AddOne(p, control)
	for i := 1; i < n; i++ {
		b.in.AddOne(b.block(i), b.room(i))
	}
}

// block is the i-th block, made when it is first wanted.
func (b *inBatch) block(i int) []byte {
	if b.blocks[i] == nil {
		b.blocks[i] = make([]byte, blockSize)
	}
	return b.blocks[i]
}

// take begins the messages first to k-1 of those that the kernel has filled;
// the ones before are the caller's already. Until the first run each is of a
// single datagram, which is where it was to go; the others are put together in
// their blocks.
func (b *inBatch) take(first, k int, direct [][]byte) {
	b.at, b.n, b.runs = first, k, false
	for i := first; i < k; i++ {
		n, control, flags := b.in.Got(i)
		m := &b.messages[i]
		stride := 0
		if m.control = nil; control > 0 {
			stride, m.control = sys.TakeStride(b.room(i)[:control])
		}
		b.runs = b.runs || stride > 0 && stride < n
		payload := b.blocks[i][:n]
		if i < len(direct) && len(direct[i]) < blockSize {
			if n <= len(direct[i]) && !b.runs {
				payload = direct[i][:n]
			} else {
				copy(payload, direct[i])
			}
		}
		m.init(payload, stride)
		m.from, m.flags = b.in.From(i), flags
	}
	b.in.Forget() // the user's buffers, while what is left is held
}

// first is the message that holds the first datagram of b.
func (b *inBatch) first() *coalesced { return &b.messages[b.at] }

// bytes is how much b holds.
func (b *inBatch) bytes() (n int) {
	for i := b.at; i < b.n; i++ {
		n += len(b.messages[i].payload)
	}
	return n
}

// compact moves what b holds to memory of its own size.
func (b *inBatch) compact() *inBatch {
	c := &inBatch{n: b.n - b.at, isCompact: true}
	for i := range c.n {
		m := b.messages[b.at+i]
		m.payload = append([]byte(nil), m.payload...)
		m.control = append([]byte(nil), m.control...)
		c.messages[i] = m
	}
	return c
}

// free puts b back.
func (b *inBatch) free() {
	clear(b.messages[b.at:b.n])
	b.in.Forget()
	b.at, b.n, b.next, b.longRoom = 0, 0, nil, false
	if !b.isCompact {
		inBatches.Put(b)
	}
}

// take takes datagrams of m into messages, as far as either goes.
func (m *coalesced) take(msgs []InputMessage, flags int) (n int) {
	from := unmapped(m.from)
	for n = range min(m.left, len(msgs)) {
		to := &msgs[n]
		m.fill(to, flags)
		to.Addr = from
		m.drop()
	}
	return n + 1
}

// fill puts the first datagram of m into the user's message, and says how much
// of it went in.
func (m *coalesced) fill(to *InputMessage, flags int) (n int) {
	p := m.first()
	n = len(p)
	if len(to.Vectors) != 1 || !isAt(p, to.Vectors[0]) {
		n = scatter(to.Vectors, p)
	}
	to.BytesReceived, to.Flags = n, m.flags
	if n < len(p) {
		to.Flags |= MsgTruncated
		if flags&sys.MsgTrunc != 0 {
			to.BytesReceived = len(p)
		}
	}
	to.ControlReceived = 0
	if len(m.control) > 0 {
		to.ControlReceived = m.fillControl(to.Control, &to.Flags)
	}
	return n
}

// fillControl puts the control messages of m into room, as the kernel would.
func (m *coalesced) fillControl(room []byte, flags *int) int {
	n, truncated := sys.PutControl(room, m.control)
	if truncated {
		*flags |= MsgControlTruncated
	}
	return n
}

// isAt reports whether p is at the beginning of v already.
func isAt(p, v []byte) bool { return len(p) > 0 && len(v) >= len(p) && &p[0] == &v[0] }

// overlap reports whether two buffers share memory.
func overlap(v, w []byte) bool {
	if len(v) == 0 || len(w) == 0 {
		return false
	}
	at, other := uintptr(unsafe.Pointer(&v[0])), uintptr(unsafe.Pointer(&w[0]))
	return at < other+uintptr(len(w)) && other < at+uintptr(len(v))
}

// scatter copies p into vectors, and returns how much went in.
func scatter(vectors []InputVector, p []byte) (n int) {
	if len(vectors) == 1 {
		return copy(vectors[0], p)
	}
	for _, v := range vectors {
		k := copy(v, p)
		n += k
		if p = p[k:]; len(p) == 0 {
			break
		}
	}
	return n
}

// unmapped is an address as InputMessage has it.
func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// A udpAddr is a net.UDPAddr with its IP, in one piece.
type udpAddr struct {
	net.UDPAddr
	ip [16]byte
}

// newUDPAddr is the form of an address that package net and x/net return: that
// of the socket's family.
func newUDPAddr(from netip.AddrPort, isIPv6 bool) *net.UDPAddr {
	a := new(udpAddr)
	addr := from.Addr()
	if isIPv6 {
		a.ip = addr.As16()
		a.IP = a.ip[:]
	} else {
		ip := addr.As4()
		a.IP = append(a.ip[:0:4], ip[:]...)
	}
	a.Port, a.Zone = int(from.Port()), addr.Zone()
	return &a.UDPAddr
}

// An inAdopted holds messages in our shape during a read that was given them in
// another. What waits keeps it, so there are short ones.
type inAdopted struct{ msgs []InputMessage }

func newInAdopted(n int) *inAdopted { return &inAdopted{make([]InputMessage, n)} }

var (
	inAdopteds      = sync.Pool{New: func() any { return newInAdopted(maxPlain) }}
	shortInAdopteds = sync.Pool{New: func() any { return newInAdopted(minPlain) }}
)

// getInAdopted returns one for a read of n messages.
func getInAdopted(n int) *inAdopted {
	if n <= minPlain {
		return shortInAdopteds.Get().(*inAdopted)
	}
	return inAdopteds.Get().(*inAdopted)
}

// adopt takes as many of ms as fit.
func (a *inAdopted) adopt(ms []ipv4.Message) []InputMessage {
	msgs := a.msgs[:min(len(ms), len(a.msgs))]
	for i := range msgs {
		msgs[i].Vectors, msgs[i].Control = ms[i].Buffers, ms[i].OOB
	}
	return msgs
}

// giveBack sets what was received of the first n.
func (a *inAdopted) giveBack(ms []ipv4.Message, n int, isIPv6 bool) {
	var last netip.AddrPort
	var addr net.Addr
	for i := range a.msgs[:n] {
		m := &a.msgs[i]
		if !m.Addr.IsValid() {
			addr = nil
		} else if m.Addr != last || addr == nil {
			addr, last = newUDPAddr(m.Addr, isIPv6), m.Addr
		}
		ms[i].Addr, ms[i].N, ms[i].NN, ms[i].Flags = addr, m.BytesReceived, m.ControlReceived, m.Flags
	}
}

// free puts a back without anything of the user's in it, of n messages.
func (a *inAdopted) free(n int) {
	clear(a.msgs[:n])
	if len(a.msgs) == minPlain {
		shortInAdopteds.Put(a)
	} else {
		inAdopteds.Put(a)
	}
}
