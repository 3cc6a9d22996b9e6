// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"math"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"golang.org/x/net/ipv4"

	"github.com/batchconn/batchconn/internal/sys"
)

// Conversion between the user's messages and the kernel's. It is given limits
// and returns results: it knows neither Conn, nor counters, nor waiting.

const (
	// maxBatch bounds the messages in one kernel call. The kernel takes
	// 1024 (sendmmsg(2)); fewer keep the batch in the processor's cache and a
	// cancelled call from waiting, and cost nothing that can be measured.
	maxBatch = 256

	// maxDatagrams bounds the datagrams in one kernel call when some go in
	// segmented messages: more would be milliseconds that nothing interrupts.
	maxDatagrams = 1024

	// maxDatagram is more than any datagram of IPv4 (65507 bytes of payload)
	// or IPv6 (65527) can hold.
	maxDatagram = 65535

	// maxFlattened bounds the flattened bytes in a batch, and maxBatchVectors
	// its own vectors: a pooled batch has room for so much, and for no more.
	maxFlattened    = 1 << 20
	maxBatchVectors = 1 << 14
)

var (
	errNoDestination  = os.NewSyscallError("sendmsg", syscall.EDESTADDRREQ)
	errMessageTooLong = os.NewSyscallError("sendmsg", syscall.EMSGSIZE)
	errInvalidMessage = os.NewSyscallError("sendmsg", syscall.EINVAL)
)

// emptyVector is what an empty datagram is made of: one empty iovec, because
// some emulations of sendmmsg lose a message that has none.
var emptyVector = []OutputVector{{}}

// destinations is where a socket sends to.
type destinations struct {
	connected bool // to its peer alone
	family    interface {
		accepts(to netip.Addr) error // else to these: nil, or why not, in net's words
	}
}

// check says why nothing can be sent to an address, the zero one being that of
// the connected peer.
func (d *destinations) check(to netip.AddrPort) error {
	switch zero := to == (netip.AddrPort{}); {
	case zero && !d.connected:
		return errNoDestination
	case zero:
		return nil
	case d.connected:
		return net.ErrWriteToConnected
	}
	return d.family.accepts(to.Addr())
}

// A plan is what a batch is made by.
type plan struct {
	to       *destinations
	limits   segmentLimits // of a run
	refusals *refusals     // which destinations take smaller runs, or none
	zeroCopy bool          // the kernel reads the payload after the call
}

// An outBatch holds messages in the kernel's shape between the user's call and
// the kernel's: ms[head:tail] are converted and not yet sent.
type outBatch struct {
	ms         []ipv4.Message
	runs       []run // runs[i] is what ms[i] holds
	dst        []destination
	head, tail int
	used       int // bound of the ms that held anything since newOutBatch

	vectors [][]byte // of messages that hold other vectors than one message of the user's
	flat    []byte   // contents of messages with more vectors than the kernel takes
	control []byte   // control messages of segmented messages

	one     [1]OutputMessage // the message of the sends that take one
	vector  [1][]byte
	adopted []OutputMessage // WriteBatch's messages
}

// A run is the datagrams in one kernel message: all of one size, except that
// the last may be shorter. size is not set for a single one.
type run struct{ n, size int }

// A destination is what ms[i].Addr points to: udp.IP is always ip[:].
type destination struct {
	udp net.UDPAddr
	ip  [16]byte
}

var outBatches = sync.Pool{New: func() any { return new(outBatch) }}

func newOutBatch() *outBatch { return outBatches.Get().(*outBatch) }

// discard forgets what is pending.
func (b *outBatch) discard() { b.head, b.tail = 0, 0 }

// free puts b back without anything of the user's in it. Only what was used is
// cleared: clearing all of it costs as much as sending.
func (b *outBatch) free() {
	clear(b.ms[:b.used])
	b.used = 0
	b.discard()
	b.release()
	b.one[0], b.vector[0] = OutputMessage{}, nil
	clear(b.adopted)
	b.adopted = b.adopted[:0]
	outBatches.Put(b)
}

// release forgets what the messages of the last fill held beside the user's own
// slices.
func (b *outBatch) release() {
	clear(b.vectors)
	b.vectors, b.flat, b.control = b.vectors[:0], b.flat[:0], b.control[:0]
}

func (b *outBatch) empty() bool             { return b.head == b.tail }
func (b *outBatch) pending() []ipv4.Message { return b.ms[b.head:b.tail] }

// grow makes place for n messages.
func (b *outBatch) grow(n int) {
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

// fill converts messages until one kernel call is full or a message is bad. If
// that is the first, b is empty and the error says what is wrong with it; after
// others it is left for the next fill. No payload is copied, except that of
// messages with more than sys.MaxVectors vectors.
func (b *outBatch) fill(p *plan, msgs []OutputMessage) (err error) {
	msgs = msgs[:min(len(msgs), maxDatagrams)]
	b.grow(min(len(msgs), maxBatch))
	b.release()
	b.discard()
	limits := p.limits
	var last netip.AddrPort // destination of ms[tail-1], to convert it once for many
	asked := false          // whether limits are those of last
	for len(msgs) > 0 && b.tail < maxBatch && len(b.vectors) < maxBatchVectors {
		m := &msgs[0]
		if b.tail > 0 && m.Addr == last {
			b.ms[b.tail].Addr = b.ms[b.tail-1].Addr
		} else {
			if err = b.address(p.to, b.tail, m.Addr); err != nil {
				break
			}
			last, asked = m.Addr, false
		}
		r := run{n: 1}
		if limits.segments > 1 && len(msgs) > 1 && msgs[1].Addr == last { // a caller that sends no runs pays for this comparison alone
			if !asked {
				limits.tooLarge, asked = p.refusals.tooLarge(last.Addr()), true
			}
			r = limits.run(msgs)
		}
		if r.n > 1 {
			b.putRun(r, msgs)
		} else if err = b.put(p, m); err != nil {
			break
		}
		msgs = msgs[r.n:]
	}
	b.used = max(b.used, min(b.tail+1, len(b.ms))) // a message that was not taken may have left its address
	if b.tail > 0 {
		return nil
	}
	return err
}

// address sets the destination of ms[i], or says what is wrong with it.
func (b *outBatch) address(dst *destinations, i int, to netip.AddrPort) error {
	if err := dst.check(to); err != nil {
		return err
	}
	if dst.connected {
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

// put adds a message that goes down as it is.
func (b *outBatch) put(p *plan, m *OutputMessage) (err error) {
	vectors := m.Vectors
	if len(vectors) == 0 {
		vectors = emptyVector
	} else if len(vectors) > sys.MaxVectors {
		if vectors, err = b.flatten(p, m); err != nil {
			return err
		}
	}
	out := &b.ms[b.tail]
	out.Buffers, out.OOB = vectors, m.Control
	b.runs[b.tail] = run{n: 1}
	b.tail++
	return nil
}

// putRun adds the messages of a run as one segmented message.
func (b *outBatch) putRun(r run, msgs []OutputMessage) {
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
	b.control = sys.AppendSegmentControl(b.control, r.size, msgs[0].Control)
	out.OOB = b.control[start:len(b.control):len(b.control)]
	b.runs[b.tail] = r
	b.tail++
}

// adjoins reports whether v begins where p ends, in p's array: the kernel
// copies one vector faster than two.
func adjoins(p, v []byte) bool {
	n := len(p)
	return len(v) > 0 && cap(p)-n >= len(v) && &p[:n+1][n] == &v[0]
}

// errFull is the error of a message that waits for the next batch, because this
// one holds enough.
var errFull = os.NewSyscallError("sendmsg", syscall.EAGAIN)

// flatten copies a message that has more vectors than the kernel takes into
// one.
func (b *outBatch) flatten(p *plan, m *OutputMessage) ([][]byte, error) {
	size := m.payload()
	if size > maxDatagram || p.zeroCopy { // the kernel would read the copy after we reuse it
		return nil, errMessageTooLong
	}
	if len(b.flat) > 0 && len(b.flat)+size > maxFlattened {
		return nil, errFull
	}
	start := len(b.flat)
	for _, v := range m.Vectors {
		b.flat = append(b.flat, v...)
	}
	b.vectors = append(b.vectors, b.flat[start:len(b.flat):len(b.flat)])
	return b.vectors[len(b.vectors)-1 : len(b.vectors) : len(b.vectors)], nil
}

// A tally is what a kernel call has sent.
type tally struct{ messages, bytes, segmented int }

// sent takes the first k pending kernel messages as sent: it sets BytesSent of
// their messages, which are the first of msgs.
func (b *outBatch) sent(msgs []OutputMessage, k int) (t tally) {
	for i, m := range b.pending()[:k] {
		t.bytes += m.N
		r := b.runs[b.head+i]
		if r.n == 1 {
			msgs[t.messages].BytesSent = m.N
			t.messages++
			continue
		}
		for left := m.N; left > 0; left -= r.size {
			msgs[t.messages].BytesSent = min(left, r.size)
			t.messages++
		}
		t.segmented += r.n
	}
	b.head += k
	return t
}

// adopt converts x/net's messages, as many as one kernel call takes, into
// b.adopted. bad says that the message after them has an Addr to which nothing
// can be sent.
func (b *outBatch) adopt(ms []ipv4.Message) (msgs []OutputMessage, bad bool) {
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
