// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux && !android && !batchconn_portable

package batchconn

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/batchconn/batchconn/internal/sys"
)

// A datagram is what leaves the model of a kernel.
type datagram struct {
	to      netip.AddrPort
	p       []byte
	control []byte
}

func (d datagram) equal(o datagram) bool {
	return d.to == o.to && bytes.Equal(d.p, o.p) && bytes.Equal(d.control, o.control)
}

// cutMessage makes of a kernel message what the kernel makes of it, and fails
// where the oldest kernel would refuse.
func cutMessage(t *testing.T, m *ipv4.Message) (ds []datagram, size int) {
	t.Helper()
	var to netip.AddrPort
	if m.Addr != nil {
		to = m.Addr.(*net.UDPAddr).AddrPort()
		to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	}
	p := bytes.Join(m.Buffers, nil)
	if len(m.Buffers) > sys.MaxVectors {
		t.Fatalf("%d vectors in a kernel message", len(m.Buffers))
	}
	size, control := segmentSize(t, m.OOB)
	if size == 0 || size == ownSize {
		return []datagram{{to, p, m.OOB}}, 0
	}
	if size >= len(p) || len(p) > 65507 || len(p)+sys.CountedHeaders > 64*size {
		t.Fatalf("a segmented message of %d bytes in segments of %d", len(p), size)
	}
	for s := range slices.Chunk(p, size) {
		ds = append(ds, datagram{to, s, control})
	}
	return ds, size
}

// segmentSize splits control data into the UDP_SEGMENT control message that is
// first in it, if any, and the rest.
func segmentSize(t *testing.T, control []byte) (size int, rest []byte) {
	t.Helper()
	if len(control) < unix.CmsgSpace(2) {
		return 0, control
	}
	first, err := unix.ParseSocketControlMessage(control[:unix.CmsgSpace(2)])
	if err != nil || len(first) != 1 || first[0].Header.Level != unix.SOL_UDP || first[0].Header.Type != unix.UDP_SEGMENT {
		return 0, control
	}
	if len(first[0].Data) != 2 {
		t.Fatalf("a UDP_SEGMENT control message of %d bytes", len(first[0].Data))
	}
	return int(binary.NativeEndian.Uint16(first[0].Data)), control[unix.CmsgSpace(2):]
}

// datagramOf is what a message is when it is sent plainly.
func datagramOf(m *OutputMessage) datagram {
	to := m.Addr
	if to.IsValid() {
		to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	}
	return datagram{to, bytes.Join(m.Vectors, nil), m.Control}
}

// FuzzBatch: however many kernel messages are taken and whichever runs are
// refused, what was taken is a prefix of the batch, and account says so.
func FuzzBatch(f *testing.F) {
	fuzzSeeds(f, func(batch []byte) {
		for _, steps := range [][]byte{nil, {1}, {0x80}, {1, 0x80, 2, 0x81, 0, 0, 0x82, 1}, {0x80, 0x80, 1, 1, 1, 1, 0x80}} {
			f.Add(batch, steps, byte(0))
		}
		f.Add(batch, []byte{0x80, 1, 2}, byte(10))
	})
	f.Fuzz(func(t *testing.T, data, steps []byte, segments byte) {
		msgs, steps := fuzzMessages(data, fuzzControls), steps[:min(len(steps), 64)]
		var s sender
		s.to.family = (*adapterV4)(nil)
		p := plan{to: &s.to, refusals: &s.gso.refusals, limits: segmentLimits{segments: maxSegments, headers: sys.CountedHeaders}}
		if segments > 0 {
			p.limits.segments = min(int(segments), maxSegments)
		}
		var fb fallback
		b := newOutBatch()
		defer b.free()
		for n := 0; n < len(msgs); {
			if b.empty() {
				if err := fb.fill(b, p, msgs[n:]); err != nil {
					if !b.empty() || msgs[n].payload() <= maxDatagram {
						t.Fatalf("nothing to send of %d messages: %v", len(msgs)-n, err)
					}
					n++
					fb = fallback{} // SendEach goes on with a new call
					continue
				}
			}
			checkPending(t, b, msgs[n:], p.limits.segments)
			k, refused := len(b.pending()), false
			if len(steps) > 0 {
				k, refused = min(int(steps[0]&0x7f), k), steps[0]&0x80 != 0
				steps = steps[1:]
			}
			got := acceptSome(t, &s, &fb, b, msgs[n:], k)
			n += got
			if refused && n < len(msgs) && !b.empty() {
				isRun := b.runs[b.head].n > 1
				if s.fallBack(&fb, b, syscall.EINVAL, msgs[n].Addr) != isRun {
					t.Fatalf("fallBack of run %+v is %v", b.runs[b.head], !isRun)
				}
			}
		}
	})
}

// checkPending compares what b holds with the messages it was made of.
func checkPending(t *testing.T, b *outBatch, msgs []OutputMessage, segments int) {
	t.Helper()
	n := 0
	for i := range b.pending() {
		ds, size := cutMessage(t, &b.pending()[i])
		if r := b.runs[b.head+i]; r.n != len(ds) || r.n > 1 && r.size != size || r.n > segments {
			t.Fatalf("kernel message %d has %d segments of %d, and is noted as %+v", i, len(ds), size, r)
		}
		for _, d := range ds {
			if want := datagramOf(&msgs[n]); !d.equal(want) {
				t.Fatalf("datagram %d is %s to %v, want %s to %v", n, brief(d.p), d.to, brief(want.p), want.to)
			}
			n++
		}
	}
	if n > maxDatagrams {
		t.Fatalf("%d datagrams in one call", n)
	}
}

// acceptSome takes k kernel messages as sent and checks the count of datagrams
// and their BytesSent, and that no other is touched.
func acceptSome(t *testing.T, s *sender, fb *fallback, b *outBatch, msgs []OutputMessage, k int) int {
	t.Helper()
	want := 0
	for i := range b.pending()[:k] {
		m := &b.pending()[i]
		m.N = len(bytes.Join(m.Buffers, nil))
		want += b.runs[b.head+i].n
	}
	for i := range msgs {
		msgs[i].BytesSent = -1
	}
	got := s.record(fb, b.sent(msgs, k))
	if got != want {
		t.Fatalf("%d kernel messages are %d datagrams, want %d", k, got, want)
	}
	for i := range msgs {
		bytesSent := -1
		if i < got {
			bytesSent = msgs[i].payload()
		}
		if msgs[i].BytesSent != bytesSent {
			t.Fatalf("BytesSent of message %d is %d, want %d; %d were sent", i, msgs[i].BytesSent, bytesSent, got)
		}
	}
	return got
}

// A kernelModel is a kernel of simple rules for a fake to play, which does to a
// segmented message what it does to its datagrams, or refuses it.
type kernelModel struct {
	t        *testing.T
	takes    []byte                  // at most so many messages by each call in turn; 0: all
	refuses  map[netip.Addr]error    // of segmented messages to an address
	bad      func(d *datagram) error // datagrams that nobody takes
	sent     []datagram
	fallBack int // segmented messages refused
}

func (k *kernelModel) play(_ int, ms []ipv4.Message) (int, error) {
	if len(ms) == 0 || len(ms) > maxBatch {
		k.t.Fatalf("%d messages in one call", len(ms))
	}
	if len(k.takes) > 0 {
		if limit := int(k.takes[0]); limit > 0 {
			ms = ms[:min(limit, len(ms))]
		}
		k.takes = append(k.takes[1:], k.takes[0])
	}
	for i := range ms {
		if err := k.take(&ms[i]); err != nil {
			if i > 0 {
				return i, nil // the next call meets it again, sendmmsg(2)
			}
			return 0, err
		}
	}
	return len(ms), nil
}

func (k *kernelModel) take(m *ipv4.Message) error {
	ds, size := cutMessage(k.t, m)
	if size > 0 && k.refuses[ds[0].to.Addr()] != nil {
		k.fallBack++
		return k.refuses[ds[0].to.Addr()]
	}
	for i := range ds {
		if err := k.bad(&ds[i]); err != nil {
			return err
		}
		ds[i].p, ds[i].control = bytes.Clone(ds[i].p), bytes.Clone(ds[i].control) // the pool has them again
	}
	k.sent = append(k.sent, ds...)
	return nil
}

// FuzzSend: with segmentation every call gives what it gives without: the same
// counts, errors, BytesSent and datagrams, whatever the kernel refuses.
func FuzzSend(f *testing.F) {
	fuzzSeeds(f, func(batch []byte) {
		for call := range byte(3) {
			f.Add(batch, []byte{}, byte(0), uint16(0), call)
			f.Add(batch, []byte{1, 2, 0}, byte(0x11), uint16(0), call)
			f.Add(batch, []byte{2}, byte(0x65), uint16(40000), call)
			f.Add(batch, []byte{0, 3}, byte(0xff), uint16(400), call)
		}
	})
	off := fuzzConn(f, &Config{GSO: GSOOff})
	f.Fuzz(func(t *testing.T, data, takes []byte, refuses byte, bad uint16, call byte) {
		auto := fuzzConn(t, nil) // remembers, so of its own
		defer auto.Close()
		want := fuzzSend(t, off, data, takes, 0, bad, call)
		got := fuzzSend(t, auto, data, takes, refuses, bad, call)
		got.compare(t, want)
	})
}

func fuzzConn(t testing.TB, cfg *Config) *Conn {
	t.Helper()
	u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(u, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// A fuzzOutcome is all that a user can see of sending a batch to its end.
type fuzzOutcome struct {
	steps []string // n and the errors
	bytes []int    // BytesSent
	sent  []datagram
}

func (o fuzzOutcome) compare(t *testing.T, want fuzzOutcome) {
	t.Helper()
	if !slices.Equal(o.steps, want.steps) {
		t.Errorf("the calls ended\n%q, plainly\n%q", o.steps, want.steps)
	}
	if !slices.Equal(o.bytes, want.bytes) {
		t.Errorf("BytesSent %d, plainly %d", o.bytes, want.bytes)
	}
	if !slices.EqualFunc(o.sent, want.sent, datagram.equal) {
		t.Errorf("%d datagrams left, plainly %d", len(o.sent), len(want.sent))
		for i := range min(len(o.sent), len(want.sent)) {
			if got, want := o.sent[i], want.sent[i]; !got.equal(want) {
				t.Fatalf("datagram %d is %s to %v %x, plainly %s to %v %x", i, brief(got.p), got.to, got.control, brief(want.p), want.to, want.control)
			}
		}
	}
}

// errors that a segmented message may meet, and a datagram.
var fuzzErrors = []syscall.Errno{syscall.EINVAL, syscall.EMSGSIZE, syscall.EIO, syscall.EPERM}

func fuzzSend(t *testing.T, c *Conn, data, takes []byte, refuses byte, bad uint16, call byte) fuzzOutcome {
	t.Helper()
	k := &kernelModel{t: t, takes: bytes.Clone(takes), refuses: map[netip.Addr]error{}}
	for i := range fuzzPeers[:2] {
		if refuses>>(4*i)&1 != 0 {
			k.refuses[fuzzPeers[i].Addr()] = os.NewSyscallError("sendmmsg", fuzzErrors[refuses>>(4*i+1)&3])
		}
	}
	k.bad = func(d *datagram) error {
		switch {
		case len(d.p) > 65507:
			return os.NewSyscallError("sendmmsg", syscall.EMSGSIZE)
		case len(d.p) >= 2 && binary.BigEndian.Uint16(d.p) < bad>>4: // some, by their contents
			return os.NewSyscallError("sendmmsg", fuzzErrors[bad&3])
		}
		return nil
	}
	real := c.send.kernel
	replaceAdapter(&c.send.kernel, k.play)
	defer func() { c.send.kernel = real }()

	msgs := fuzzMessages(data, fuzzControls)
	o := fuzzCalls(c, msgs, call)
	o.sent = k.sent
	return o
}

// fuzzCalls sends all of msgs, passing over those that cannot be sent.
func fuzzCalls(c *Conn, msgs []OutputMessage, call byte) (o fuzzOutcome) {
	ms := xnetMessages(msgs)
	o.bytes = make([]int, len(msgs))
	for at := 0; at < len(msgs); {
		var n int
		var err error
		rest := msgs[at:]
		switch call % 3 {
		case 0:
			n, err = c.SendMessages(nil, rest, 0)
		case 1:
			n, err = c.SendEach(nil, rest, 0)
		case 2:
			n, err = c.WriteBatch(ms[at:], 0)
			for i := range ms[at:][:n] {
				rest[i].BytesSent = ms[at+i].N
			}
		}
		o.steps = append(o.steps, stepOf(n, err))
		if n == 0 {
			at++
			continue
		}
		for i := range rest[:n] {
			o.bytes[at+i] = rest[i].BytesSent
		}
		at += n
	}
	return o
}

// stepOf is n and err without what differs between sockets.
func stepOf(n int, err error) string {
	s := strconv.Itoa(n)
	var batch *BatchError
	if errors.As(err, &batch) {
		for _, f := range batch.Failed {
			s += " " + strconv.Itoa(f.Index) + ":" + cause(f.Err).Error()
		}
		return s
	}
	if err != nil {
		s += " " + cause(err).Error()
	}
	return s
}
