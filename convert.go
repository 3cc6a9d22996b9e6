// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"golang.org/x/net/ipv4"
)

const (
	// maxBatch is the most datagrams in one kernel call. The kernel takes
	// 1024 (sendmmsg(2)); fewer keep the batch in the processor's cache and a
	// cancelled call from waiting, and cost nothing that can be measured.
	maxBatch = 256

	// maxDatagram is more than any datagram of IPv4 (65507 bytes of payload)
	// or IPv6 (65527) can hold.
	maxDatagram = 65535

	// maxGathered bounds what a pooled batch keeps of gathered vectors.
	maxGathered = 1 << 20
)

var (
	errNoDestination  = os.NewSyscallError("sendmsg", syscall.EDESTADDRREQ)
	errMessageTooLong = os.NewSyscallError("sendmsg", syscall.EMSGSIZE)
	errInvalidMessage = os.NewSyscallError("sendmsg", syscall.EINVAL)
)

// emptyVector is what an empty datagram is made of: one empty iovec, because
// some emulations of sendmmsg lose a message that has none.
var emptyVector = []OutputVector{{}}

// A batch holds messages in the kernel's shape between the user's call and the
// kernel's: ms[head:tail] are converted and not yet sent.
type batch struct {
	ms         []ipv4.Message
	dst        []destination
	head, tail int
	used       int   // most of ms that held anything since newBatch
	bad        error // why the message after ms[tail-1] was not taken; nil if it had its turn yet to come

	gathered []byte   // contents of messages with more vectors than the kernel takes
	vectors  [][]byte // each gathered message's single vector

	one     [1]OutputMessage // the message of the sends that take one
	vector  [1][]byte
	adopted []OutputMessage // WriteBatch's messages
}

// A destination is what ms[i].Addr points to: udp.IP is always ip[:].
type destination struct {
	udp net.UDPAddr
	ip  [16]byte
}

var batches = sync.Pool{New: func() any { return new(batch) }}

func newBatch() *batch { return batches.Get().(*batch) }

// free puts b back without anything of the user's in it. Only what was used is
// cleared: clearing all of it costs as much as sending.
func (b *batch) free() {
	clear(b.ms[:b.used])
	b.head, b.tail, b.used, b.bad = 0, 0, 0, nil
	b.releaseGathered()
	b.one[0], b.vector[0] = OutputMessage{}, nil
	clear(b.adopted)
	b.adopted = b.adopted[:0]
	batches.Put(b)
}

func (b *batch) empty() bool             { return b.head == b.tail }
func (b *batch) pending() []ipv4.Message { return b.ms[b.head:b.tail] }

// grow makes place for n messages.
func (b *batch) grow(n int) {
	if n <= len(b.ms) {
		return
	}
	n = min(max(n, 2*len(b.ms)), maxBatch)
	b.ms = make([]ipv4.Message, n)
	b.dst = make([]destination, n)
	for i := range b.dst {
		b.dst[i].udp.IP = b.dst[i].ip[:]
	}
}

// fill converts messages until one kernel call is full or a message is bad,
// which b.bad then tells. It reports whether there is anything to send. No
// payload is copied, but for messages with more than maxVectors vectors.
func (b *batch) fill(c *Conn, msgs []OutputMessage, flags int) bool {
	msgs = msgs[:min(len(msgs), maxBatch)]
	b.grow(len(msgs))
	b.releaseGathered()
	b.head, b.tail, b.bad = 0, 0, nil
	b.used = max(b.used, len(msgs))
	var last netip.AddrPort // destination of ms[tail-1], to convert it once for a run
	for i := range msgs {
		m, out := &msgs[i], &b.ms[i]
		if i > 0 && m.Addr == last {
			out.Addr = b.ms[i-1].Addr
		} else if b.bad = b.address(c, i, m.Addr); b.bad != nil {
			break
		}
		last = m.Addr
		out.Buffers, out.OOB = m.Vectors, m.Control
		if n := len(m.Vectors); (n == 0 || n > maxVectors) && !b.odd(out, flags) {
			break
		}
		b.tail++
	}
	return b.tail > 0
}

// address sets the destination of ms[i], or says what is wrong with it.
func (b *batch) address(c *Conn, i int, to netip.AddrPort) error {
	if to == (netip.AddrPort{}) {
		if !c.connected {
			return errNoDestination
		}
		b.ms[i].Addr = nil
		return nil
	}
	if c.connected {
		return net.ErrWriteToConnected
	}
	addr := to.Addr()
	if err := c.adapter.accepts(addr); err != nil {
		return err
	}
	d := &b.dst[i]
	d.ip = addr.As16()
	d.udp.Port = int(to.Port())
	d.udp.Zone = addr.Zone()
	b.ms[i].Addr = &d.udp
	return nil
}

// odd handles the messages that have no vector or more than the kernel takes.
// It reports false if m is not to be part of this batch.
func (b *batch) odd(m *ipv4.Message, flags int) bool {
	if len(m.Buffers) == 0 {
		m.Buffers = emptyVector
		return true
	}
	size := 0
	for _, v := range m.Buffers {
		size += len(v)
	}
	if size > maxDatagram || flags&msgZeroCopy != 0 { // the kernel would read the gathered copy after we reuse it
		b.bad = errMessageTooLong
		return false
	}
	if len(b.gathered)+size > maxGathered {
		return false // there is at least one before it, so the next fill takes it
	}
	start := len(b.gathered)
	for _, v := range m.Buffers {
		b.gathered = append(b.gathered, v...)
	}
	b.vectors = append(b.vectors, b.gathered[start:len(b.gathered):len(b.gathered)])
	m.Buffers = b.vectors[len(b.vectors)-1 : len(b.vectors) : len(b.vectors)]
	return true
}

func (b *batch) releaseGathered() {
	b.gathered = b.gathered[:0]
	clear(b.vectors)
	b.vectors = b.vectors[:0]
}

// account takes the first k pending kernel messages as sent: it sets BytesSent
// of their messages, which are the first of msgs, and returns how many.
func (b *batch) account(c *Conn, msgs []OutputMessage, k int) int {
	if k == 0 {
		return 0
	}
	bytes := 0
	for i, m := range b.pending()[:k] {
		msgs[i].BytesSent = m.N
		bytes += m.N
	}
	b.head += k
	c.stats.messages.Add(uint64(k))
	c.stats.bytes.Add(uint64(bytes))
	return k
}

// adopt converts x/net's messages, as many as one kernel call takes, into
// b.adopted. bad says that the message after them has an address that is none.
func (b *batch) adopt(ms []ipv4.Message) (msgs []OutputMessage, bad bool) {
	clear(b.adopted) // free clears only what is left in it last
	b.adopted = b.adopted[:0]
	for i := range ms[:min(len(ms), maxBatch)] {
		m := OutputMessage{Vectors: ms[i].Buffers, Control: ms[i].OOB}
		if ms[i].Addr != nil {
			udp, ok := ms[i].Addr.(*net.UDPAddr)
			if !ok || udp == nil {
				return b.adopted, true
			}
			if m.Addr = udp.AddrPort(); !m.Addr.IsValid() {
				return b.adopted, true
			}
		}
		b.adopted = append(b.adopted, m)
	}
	return b.adopted, false
}

// AppendSegments cuts p into datagrams of size bytes, the last one possibly
// shorter, and appends a message for each to dst: for callers that fill one
// long buffer. All go to one address with the same control messages. The
// messages alias p. An empty p makes none; a size below 1 makes one of all of
// p.
//
// Elements of dst beyond its length are reused, their Vectors' arrays
// included, so a slice that has grown is filled without allocation:
//
//	msgs = batchconn.AppendSegments(msgs[:0], to, buf, 1200, nil)
func AppendSegments(dst []OutputMessage, to netip.AddrPort, p []byte, size int, control []byte) []OutputMessage {
	if size < 1 {
		size = len(p)
	}
	for len(p) > 0 {
		if len(dst) == cap(dst) {
			dst = append(dst, OutputMessage{})
		} else {
			dst = dst[:len(dst)+1]
		}
		m := &dst[len(dst)-1]
		n := min(size, len(p))
		m.Addr, m.Control, m.BytesSent = to, control, 0
		m.Vectors = append(m.Vectors[:0], p[:n:n])
		p = p[n:]
	}
	return dst
}
