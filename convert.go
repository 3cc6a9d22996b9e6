// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"errors"
	"math"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"golang.org/x/net/ipv4"
)

const (
	// maxBatch is the most messages in one kernel call. The kernel takes
	// 1024 (sendmmsg(2)); fewer keep the batch in the processor's cache and a
	// cancelled call from waiting, and cost nothing that can be measured.
	maxBatch = 256

	// maxDatagrams is the most datagrams in one kernel call when some go in
	// segmented messages: more would be milliseconds that nothing interrupts.
	maxDatagrams = 1024

	// maxDatagram is more than any datagram of IPv4 (65507 bytes of payload)
	// or IPv6 (65527) can hold.
	maxDatagram = 65535

	// maxGathered and maxHeld bound what a pooled batch keeps of gathered
	// bytes and of vectors.
	maxGathered = 1 << 20
	maxHeld     = 1 << 14
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
	runs       []run // runs[i] is what ms[i] holds
	dst        []destination
	head, tail int
	used       int   // most of ms that held anything since newBatch
	bad        error // why the message after the last of ms was not taken; nil if its turn is to come

	vectors  [][]byte // of messages that hold other vectors than one message of the user's
	gathered []byte   // contents of messages with more vectors than the kernel takes
	control  []byte   // control messages of segmented messages

	segments int        // most datagrams in a segmented message; 0 for no segmentation
	plain    int        // how many messages still go plainly because their run was refused
	refused  refusedRun // that run
	again    bool       // a run goes again as it is, since its EMSGSIZE may have been pending

	one     [1]OutputMessage // the message of the sends that take one
	vector  [1][]byte
	adopted []OutputMessage // WriteBatch's messages
}

// A run is the datagrams in one kernel message: all of one size but the last,
// which may be shorter. size is not set for a single one.
type run struct{ n, size int }

// A destination is what ms[i].Addr points to: udp.IP is always ip[:].
type destination struct {
	udp net.UDPAddr
	ip  [16]byte
}

var batches = sync.Pool{New: func() any { return new(batch) }}

func newBatch() *batch { return batches.Get().(*batch) }

// discard forgets what is pending, with what is known of it.
func (b *batch) discard() {
	b.head, b.tail, b.bad = 0, 0, nil
	b.plain, b.refused, b.again = 0, refusedRun{}, false
}

// free puts b back without anything of the user's in it. Only what was used is
// cleared: clearing all of it costs as much as sending.
func (b *batch) free() {
	clear(b.ms[:b.used])
	b.used = 0
	b.discard()
	b.release()
	if cap(b.vectors) > 2*maxHeld {
		b.vectors = nil
	}
	b.one[0], b.vector[0] = OutputMessage{}, nil
	clear(b.adopted)
	b.adopted = b.adopted[:0]
	batches.Put(b)
}

// release forgets what the messages of the last fill held beside the user's own
// slices.
func (b *batch) release() {
	clear(b.vectors)
	b.vectors, b.gathered, b.control = b.vectors[:0], b.gathered[:0], b.control[:0]
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
	b.runs = make([]run, n)
	b.dst = make([]destination, n)
	for i := range b.dst {
		b.dst[i].udp.IP = b.dst[i].ip[:]
	}
}

// fill converts messages until one kernel call is full or a message is bad,
// which b.bad then tells. It reports whether there is anything to send. No
// payload is copied, but for messages with more than maxVectors vectors.
func (b *batch) fill(c *Conn, msgs []OutputMessage, flags int) bool {
	segments := b.segments
	if b.plain > 0 {
		segments, msgs = 0, msgs[:b.plain]
	}
	msgs = msgs[:min(len(msgs), maxDatagrams)]
	b.grow(min(len(msgs), maxBatch))
	b.release()
	b.head, b.tail, b.bad = 0, 0, nil
	limits := segmentLimits{segments: segments, headers: c.gso.headers}
	var last netip.AddrPort // destination of ms[tail-1], to convert it once for many
	asked := false          // whether limits are those of last
	for len(msgs) > 0 && b.tail < maxBatch && len(b.vectors) < maxHeld {
		m := &msgs[0]
		if b.tail > 0 && m.Addr == last {
			b.ms[b.tail].Addr = b.ms[b.tail-1].Addr
		} else {
			if b.bad = b.address(c, b.tail, m.Addr); b.bad != nil {
				break
			}
			last, asked = m.Addr, false
		}
		r := run{n: 1}
		if segments > 1 && len(msgs) > 1 && msgs[1].Addr == last { // who sends no runs pays for this comparison alone
			if !asked {
				limits.tooLarge, asked = c.gso.tooLarge(last.Addr()), true
			}
			r = limits.run(msgs)
		}
		if r.n > 1 {
			b.putRun(r, msgs)
		} else if !b.put(m, flags) {
			break
		}
		msgs = msgs[r.n:]
	}
	b.used = max(b.used, min(b.tail+1, len(b.ms))) // a message that was not taken may have left its address
	return b.tail > 0
}

// address sets the destination of ms[i], or says what is wrong with it.
func (b *batch) address(c *Conn, i int, to netip.AddrPort) error {
	if err := c.checkDestination(to); err != nil {
		return err
	}
	if c.connected {
		b.ms[i].Addr = nil
		return nil
	}
	addr, d := to.Addr(), &b.dst[i]
	d.ip = addr.As16()
	d.udp.Port = int(to.Port())
	d.udp.Zone = addr.Zone()
	b.ms[i].Addr = &d.udp
	return nil
}

// checkDestination says why nothing can be sent to an address, the zero one
// being that of the connected peer.
func (c *Conn) checkDestination(to netip.AddrPort) error {
	switch zero := to == (netip.AddrPort{}); {
	case zero && !c.connected:
		return errNoDestination
	case zero:
		return nil
	case c.connected:
		return net.ErrWriteToConnected
	}
	return c.adapter.accepts(to.Addr())
}

// put adds a message that goes down as it is. It reports false if the message
// is not to be part of this batch.
func (b *batch) put(m *OutputMessage, flags int) bool {
	vectors := m.Vectors
	if len(vectors) == 0 {
		vectors = emptyVector
	} else if len(vectors) > maxVectors {
		if vectors = b.gather(m, flags); vectors == nil {
			return false
		}
	}
	out := &b.ms[b.tail]
	out.Buffers, out.OOB = vectors, m.Control
	b.runs[b.tail] = run{n: 1}
	b.tail++
	return true
}

// putRun adds the messages of a run as one segmented message.
func (b *batch) putRun(r run, msgs []OutputMessage) {
	out := &b.ms[b.tail]
	start := len(b.vectors)
	for i := range msgs[:r.n] {
		for _, v := range msgs[i].Vectors {
			if last := len(b.vectors) - 1; last >= start && adjoins(b.vectors[last], v) {
				b.vectors[last] = b.vectors[last][:len(b.vectors[last])+len(v)]
			} else if len(v) > 0 {
				b.vectors = append(b.vectors, v)
			}
		}
	}
	out.Buffers = b.vectors[start:len(b.vectors):len(b.vectors)]
	start = len(b.control)
	b.control = appendSegmentControl(b.control, r.size, msgs[0].Control)
	out.OOB = b.control[start:len(b.control):len(b.control)]
	b.runs[b.tail] = r
	b.tail++
}

// adjoins reports whether v begins where p ends, in p's array: the kernel copies
// one vector faster than two.
func adjoins(p, v []byte) bool {
	n := len(p)
	return len(v) > 0 && cap(p)-n >= len(v) && &p[:n+1][n] == &v[0]
}

// gather copies a message that has more vectors than the kernel takes into one.
// It is nil if the message is too long, or if its turn is to come because b
// holds enough already.
func (b *batch) gather(m *OutputMessage, flags int) [][]byte {
	size := m.payload()
	if size > maxDatagram || flags&msgZeroCopy != 0 { // the kernel would read the copy after we reuse it
		b.bad = errMessageTooLong
		return nil
	}
	if len(b.gathered) > 0 && len(b.gathered)+size > maxGathered {
		return nil
	}
	start := len(b.gathered)
	for _, v := range m.Vectors {
		b.gathered = append(b.gathered, v...)
	}
	b.vectors = append(b.vectors, b.gathered[start:len(b.gathered):len(b.gathered)])
	return b.vectors[len(b.vectors)-1 : len(b.vectors) : len(b.vectors)]
}

// account takes the first k pending kernel messages as sent: it sets BytesSent
// of their messages, which are the first of msgs, and returns how many.
func (b *batch) account(c *Conn, msgs []OutputMessage, k int) (n int) {
	if k == 0 {
		return 0
	}
	bytes, segmented := 0, 0
	for i, m := range b.pending()[:k] {
		bytes += m.N
		r := b.runs[b.head+i]
		if r.n == 1 {
			msgs[n].BytesSent = m.N
			n++
			continue
		}
		for left := m.N; left > 0; left -= r.size {
			msgs[n].BytesSent = min(left, r.size)
			n++
		}
		segmented += r.n
	}
	b.head += k
	c.stats.messages.Add(uint64(n))
	c.stats.bytes.Add(uint64(bytes))
	if segmented > 0 {
		c.stats.segmented.Add(uint64(segmented))
	}
	if b.plain > 0 {
		b.sentPlainly(c, n)
	}
	if b.again {
		b.again = false
		c.keepTooLong()
	}
	return n
}

// fallBack has the run at the head of b sent again plainly, and the rest of b
// planned anew after it. It reports false if err is not about a run.
//
// On a connected socket EMSGSIZE may have been pending instead, because a router
// asked for shorter datagrams (ICMP, RFC 1191). Then it is of no message here,
// and the run leaves if it is tried again.
func (b *batch) fallBack(c *Conn, msgs []OutputMessage, err error) bool {
	if b.empty() || b.runs[b.head].n == 1 || !isRefusal(err) {
		return false
	}
	tooLong := errors.Is(err, syscall.EMSGSIZE)
	if !b.again && c.connected && tooLong {
		b.again = true
		return true
	}
	if b.again && !tooLong { // another refusal: that was pending, and this is not
		c.keepTooLong()
	}
	b.again = false
	c.stats.fallbacks.Add(1)
	r := b.runs[b.head]
	b.plain, b.refused = r.n, refusedRun{msgs[0].Addr.Addr(), r.size, err}
	b.head = b.tail
	return true
}

// sentPlainly counts messages of a refused run. When all have left, it was the
// segmentation that was refused, and not a message.
func (b *batch) sentPlainly(c *Conn, n int) {
	if b.plain -= n; b.plain == 0 {
		c.gso.remember(b.refused)
	}
}

// adopt converts x/net's messages, as many as one kernel call takes, into
// b.adopted. bad says that the message after them has an address that is none.
func (b *batch) adopt(ms []ipv4.Message) (msgs []OutputMessage, bad bool) {
	clear(b.adopted) // free clears only what is left in it last
	b.adopted = b.adopted[:0]
	for i := range ms[:min(len(ms), maxDatagrams)] {
		m := OutputMessage{Vectors: ms[i].Buffers, Control: ms[i].OOB}
		if ms[i].Addr != nil {
			udp, ok := ms[i].Addr.(*net.UDPAddr)
			if !ok || udp == nil || udp.Port < 0 || udp.Port > math.MaxUint16 {
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
// messages alias p, and the capacity of their vectors runs on to its end. An
// empty p makes none; a size below 1 makes one of all of p.
//
// Elements of dst beyond its length are reused, their Vectors' arrays
// included, so a slice that has grown is filled without allocation:
//
//	msgs = batchconn.AppendSegments(msgs[:0], to, buf, 1200, nil)
//
// Those arrays are written to, so reuse only a slice that AppendSegments filled:
// of messages that share one array each would overwrite the other's payload. Do
// not append to a vector, which would write into the rest of p.
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
		m.Vectors = append(m.Vectors[:0], p[:n]) // its capacity runs on, by which putRun knows its neighbour
		p = p[n:]
	}
	return dst
}
