// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/net/ipv4"
)

// TestVectors: any number of vectors makes one datagram of their contents.
func TestVectors(t *testing.T) {
	forEachKind(t, 3, nil, func(t *testing.T, w *world) {
		for _, test := range []struct{ vectors, size int }{
			{0, 0}, {1, 0}, {5, 0}, {1024, 0}, {1025, 0}, {3000, 0},
			{1, 1}, {2, 1}, {1025, 1}, {16, 1200}, {17, 1200}, {1023, 5000}, {1024, 5000}, {1025, 5000}, {3000, 5000},
			{1, 65507}, {1024, 65507}, {1025, 65507}, {3000, 65507},
		} {
			for i, to := range w.dest {
				p := contents(test.vectors, test.size)
				msgs := []OutputMessage{
					{Addr: to, Vectors: [][]byte{[]byte("before")}},
					{Addr: to, Vectors: vectorsOf(test.size, test.vectors)},
					{Addr: to, Vectors: [][]byte{[]byte("after")}},
				}
				n, err := w.conn.SendMessages(nil, msgs, 0)
				if n != 3 || err != nil || msgs[1].BytesSent != test.size {
					t.Fatalf("%+v: %d, %v, BytesSent %d", test, n, err, msgs[1].BytesSent)
				}
				w.inboxes[i].expect(t, [][]byte{[]byte("before"), p, []byte("after")})
			}
		}
	})
}

// TestLongest: the longest datagram goes, one byte more does not.
func TestLongest(t *testing.T) {
	forEachKind(t, 2, nil, func(t *testing.T, w *world) {
		if !onLinux(w) {
			t.Skip("other systems limit datagrams to less")
		}
		for i, to := range w.dest {
			for _, vectors := range []int{1, 1025} {
				long := w.tooLong(w.inboxes[i].addr)
				p := contents(vectors, long-1)
				msg := OutputMessage{Addr: to, Vectors: vectorsOf(long-1, vectors)}
				if n, err := w.conn.SendMessage(nil, &msg, 0); n != long-1 || err != nil {
					t.Fatalf("%d bytes: %d, %v", long-1, n, err)
				}
				w.inboxes[i].expect(t, [][]byte{p})
				msg.Vectors = vectorsOf(long, vectors)
				n, err := w.conn.SendMessage(nil, &msg, 0)
				if n != 0 {
					t.Fatalf("%d bytes: %d", long, n)
				}
				checkError(t, err, syscall.EMSGSIZE)
				w.inboxes[i].expect(t, nil)
			}
		}
	})
}

// TestManyFlattened: more flattened bytes in a call than the pooled buffer
// holds.
func TestManyFlattened(t *testing.T) {
	forEachKind(t, 32, nil, func(t *testing.T, w *world) {
		m := w.write(t, 60, inTurn, func(i int) int { return 40000 })
		for i := range m.msgs {
			m.msgs[i].Vectors = nil
			for p := m.letters[i].p; len(p) > 0; p = p[min(len(p), 30):] {
				m.msgs[i].Vectors = append(m.msgs[i].Vectors, p[:min(len(p), 30)])
			}
		}
		if n, err := w.conn.SendMessages(nil, m.msgs, 0); n != 60 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
		w.checkAll(t, m)
	})
}

// TestWriteBatchSizes: x/net's shape takes any number, and sets N and NN of
// what was sent.
func TestWriteBatchSizes(t *testing.T) {
	forEachKind(t, 32, nil, func(t *testing.T, w *world) {
		for _, n := range []int{0, 1, maxBatch, maxBatch + 1, 1025, 3000} {
			m := w.write(t, n, inTurn, mixed)
			ms := xnetMessages(m.msgs)
			got, err := w.conn.WriteBatch(ms, 0)
			if got != n || err != nil {
				t.Fatalf("WriteBatch of %d = %d, %v", n, got, err)
			}
			for i := range ms {
				if ms[i].N != len(m.letters[i].p) || ms[i].NN != 0 {
					t.Fatalf("message %d: N %d, NN %d, want %d, 0", i, ms[i].N, ms[i].NN, len(m.letters[i].p))
				}
				m.msgs[i].BytesSent = ms[i].N
			}
			w.checkAll(t, m)
		}
	})
}

// TestWriteBatchAddresses: what is no address of this package's is rejected at
// its message.
func TestWriteBatchAddresses(t *testing.T) {
	bads := []struct {
		name string
		addr net.Addr
		want error
	}{
		{"foreign", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}, syscall.EINVAL},
		{"port below 0", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: -1}, syscall.EINVAL},
		{"port above 65535", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9 + 1<<16}, syscall.EINVAL},
		{"IPAddr", &net.IPAddr{IP: net.IPv4(127, 0, 0, 1)}, syscall.EINVAL},
		{"unix", &net.UnixAddr{Name: "x", Net: "unixgram"}, syscall.EINVAL},
		{"typed nil", (*net.UDPAddr)(nil), syscall.EINVAL},
		{"no IP", &net.UDPAddr{Port: 9}, syscall.EINVAL},
		{"no IP, zoned", &net.UDPAddr{Port: 9, Zone: "lo"}, syscall.EINVAL},
		{"5 bytes of IP", &net.UDPAddr{IP: make([]byte, 5), Port: 9}, syscall.EINVAL},
		{"nil", nil, syscall.EDESTADDRREQ},
		{"of a connected socket", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}, net.ErrWriteToConnected},
	}
	forEachKind(t, 4, nil, func(t *testing.T, w *world) {
		for _, b := range bads {
			if b.addr == nil && w.connected || b.want == net.ErrWriteToConnected && !w.connected {
				continue
			}
			for _, at := range []int{0, 5, maxBatch, 299} {
				m := w.write(t, 300, inTurn, mixed)
				ms := xnetMessages(m.msgs)
				ms[at].Addr = b.addr
				n, err := w.conn.WriteBatch(ms, 0)
				if n != at || (err != nil) != (at == 0) {
					t.Fatalf("%s at %d: %d, %v", b.name, at, n, err)
				}
				for i := range m.msgs {
					if i < at && ms[i].N != len(m.letters[i].p) || i >= at && (ms[i].N != -1 || ms[i].NN != -1) {
						t.Fatalf("%s at %d: N of %d is %d, NN %d", b.name, at, i, ms[i].N, ms[i].NN)
					}
					m.msgs[i].BytesSent = ms[i].N
				}
				w.checkPrefix(t, m, at)
				n, err = w.conn.WriteBatch(ms[at:], 0)
				if n != 0 {
					t.Fatalf("%s first: n = %d", b.name, n)
				}
				checkError(t, err, b.want)
			}
		}
	})
}

// TestBatchHoldsNothing: a batch that is back in the pool holds nothing that
// belongs to the user.
func TestBatchHoldsNothing(t *testing.T) {
	forEachKind(t, 3, nil, func(t *testing.T, w *world) {
		usual := outBatches.New
		defer func() { outBatches = sync.Pool{New: usual} }()
		m := w.write(t, 3*maxBatch/2, inTurn, mixed)
		m.msgs[7].Vectors = vectorsOf(len(m.letters[7].p), 3000)
		for i := range m.msgs {
			m.msgs[i].Control = []byte{}
		}
		ms := xnetMessages(m.msgs)
		tooLong := OutputMessage{Addr: w.dest[0], Vectors: vectorsOf(90000, 3000)}
		for name, send := range map[string]func(){
			"SendMessages":          func() { w.conn.SendMessages(nil, m.msgs, 0) },
			"SendMessages of less":  func() { w.conn.SendMessages(nil, m.msgs[:9], 0) },
			"SendEach":              func() { w.conn.SendEach(nil, append(m.msgs[:10:10], tooLong), 0) },
			"WriteBatch":            func() { w.conn.WriteBatch(ms, 0) },
			"WriteBatch of less":    func() { w.conn.WriteBatch(ms[:9], 0) },
			"SendMessage":           func() { w.conn.SendMessage(nil, &m.msgs[7], 0) },
			"SendMessage, rejected": func() { w.conn.SendMessage(nil, &tooLong, 0) },
			"SendTo":                func() { w.conn.SendTo(nil, []byte("mine"), w.dest[0], 0) },
		} {
			b := new(outBatch)
			outBatches = sync.Pool{New: func() any { return b }}
			send()
			if what := holds(b); what != "" {
				t.Errorf("after %s the pooled batch holds %s", name, what)
			}
		}
	})
}

// holds says what b holds of anybody's.
func holds(b *outBatch) string {
	for i, m := range b.ms[:cap(b.ms)] {
		if m.Buffers != nil || m.OOB != nil || m.Addr != nil {
			return fmt.Sprintf("message %d: %+v", i, ipv4.Message(m))
		}
	}
	for i, m := range b.adopted[:cap(b.adopted)] {
		if m.Vectors != nil || m.Control != nil {
			return fmt.Sprintf("adopted message %d", i)
		}
	}
	for i, v := range b.vectors[:cap(b.vectors)] {
		if v != nil {
			return fmt.Sprintf("flattened message %d", i)
		}
	}
	switch {
	case b.one[0].Vectors != nil || b.one[0].Control != nil || b.vector[0] != nil:
		return "its one message"
	case b.head != 0 || b.tail != 0 || b.used != 0:
		return "the state of a send"
	}
	return ""
}

// TestAdoptedHoldsNothing: of WriteBatch's messages nothing stays in a pooled
// batch, though its last chunk was the smallest.
func TestAdoptedHoldsNothing(t *testing.T) {
	b := new(outBatch)
	ms := slices.Repeat([]ipv4.Message{{Buffers: [][]byte{{1}}, OOB: []byte{2}}}, 10)
	b.adopt(ms)
	b.adopt(ms[:1])
	b.free()
	for i, m := range b.adopted[:cap(b.adopted)] {
		if m.Vectors != nil || m.Control != nil {
			t.Errorf("message %d is still held", i)
		}
	}
}
