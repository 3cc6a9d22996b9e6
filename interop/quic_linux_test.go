// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package interop

import (
	"encoding/binary"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// wantGSO is what quic-go says of its connections where it can segment.
const wantGSO = true

// An inspector is a connection that looks at what passes, for a library that
// takes it for the one inside: it has all that the library asks for and counts
// two.
type inspector struct {
	oobConn
	net.Conn    // for x/net
	batchReader // the conn's own, or x/net's over a bare one

	calls     atomic.Int64 // of WriteMsgUDP
	segmented atomic.Int64 // of them with a segment size
	marked    atomic.Int64 // of them with an ECN mark
	sent      atomic.Int64 // datagrams, as the segment sizes have it
	received  atomic.Int64 // datagrams
	largest   atomic.Int64 // received
	ecn       atomic.Int64 // received with a mark
}

// An oobConn is what quic-go looks for.
type oobConn interface {
	quic.OOBCapablePacketConn
	SetWriteBuffer(int) error
}

type batchReader interface {
	ReadBatch(ms []ipv4.Message, flags int) (int, error)
}

func inspect(t *testing.T, c net.PacketConn) *inspector {
	t.Helper()
	oob, ok := c.(oobConn)
	if !ok {
		t.Fatalf("%T is not what quic-go looks for", c)
	}
	in := &inspector{oobConn: oob, Conn: c.(net.Conn)}
	if in.batchReader, ok = c.(batchReader); !ok {
		if _, bare := c.(*net.UDPConn); !bare {
			t.Fatalf("%T has no ReadBatch", c)
		}
		in.batchReader = ipv4.NewPacketConn(c)
	}
	return in
}

// Methods that both interfaces have.
func (in *inspector) Close() error                       { return in.oobConn.Close() }
func (in *inspector) LocalAddr() net.Addr                { return in.oobConn.LocalAddr() }
func (in *inspector) SetDeadline(t time.Time) error      { return in.oobConn.SetDeadline(t) }
func (in *inspector) SetReadDeadline(t time.Time) error  { return in.oobConn.SetReadDeadline(t) }
func (in *inspector) SetWriteDeadline(t time.Time) error { return in.oobConn.SetWriteDeadline(t) }

func (in *inspector) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	in.calls.Add(1)
	size, ecn := readControl(oob)
	if size > 0 {
		in.segmented.Add(1)
		in.sent.Add(int64((len(b) + size - 1) / size))
	} else {
		in.sent.Add(1)
	}
	if ecn != 0 {
		in.marked.Add(1)
	}
	return in.oobConn.WriteMsgUDP(b, oob, addr)
}

func (in *inspector) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	n, err := in.batchReader.ReadBatch(ms, flags)
	for i := range ms[:max(n, 0)] {
		in.received.Add(1)
		in.largest.Store(max(in.largest.Load(), int64(ms[i].N)))
		if _, ecn := readControl(ms[i].OOB[:ms[i].NN]); ecn != 0 {
			in.ecn.Add(1)
		}
	}
	return n, err
}

// readControl finds a segment size and an ECN mark in control messages.
func readControl(oob []byte) (size int, ecn byte) {
	messages, _ := unix.ParseSocketControlMessage(oob)
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.SOL_UDP && m.Header.Type == unix.UDP_SEGMENT:
			size = int(binary.NativeEndian.Uint16(m.Data))
		case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_TOS:
			ecn = m.Data[0] & 3
		}
	}
	return size, ecn
}

// dropped is how many datagrams the kernel had no room for at a socket.
func dropped(t *testing.T, c net.PacketConn) int64 {
	t.Helper()
	raw, err := c.(oobConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var drops uint32
	var errno error
	if err := raw.Control(func(fd uintptr) { drops, errno = socketDrops(int(fd)) }); err != nil {
		t.Fatal(err)
	}
	if errno != nil {
		t.Fatal(errno)
	}
	return int64(drops)
}

// runQUICControl sees quic-go find all it looks for, and its control messages
// reach the kernel: what it meant to be cut arrives cut, datagram for datagram,
// and its ECN marks arrive on every one of them.
func runQUICControl(t *testing.T, s site) cost {
	upload, download := noise(3, 8<<20), noise(4, 8<<20)
	server, client := inspect(t, s.open(t, near)), inspect(t, s.open(t, far))
	quicBulk(t, newQUICPair(t, server, client), upload, download)
	for _, way := range []struct {
		name     string
		from, to *inspector
	}{{"upload", client, server}, {"download", server, client}} {
		checkControl(t, way.name, way.from, way.to)
	}
	return cost{}
}

func checkControl(t *testing.T, name string, from, to *inspector) {
	t.Helper()
	// Acknowledgements go on for a moment after the data, and one may be under
	// way whenever this looks.
	settled := false
	for end := time.Now().Add(patience / 4); !settled && time.Now().Before(end); time.Sleep(time.Millisecond) {
		settled = from.sent.Load() == to.received.Load()+dropped(t, to)
	}
	calls, segmented, marked := from.calls.Load(), from.segmented.Load(), from.marked.Load()
	received, ecn, largest := to.received.Load(), to.ecn.Load(), to.largest.Load()
	t.Logf("%s: %d calls, %d of them segmented, %d marked: %d datagrams; %d received, %d marked, the largest %d bytes, %d dropped",
		name, calls, segmented, marked, from.sent.Load(), received, ecn, largest, dropped(t, to))
	if !settled {
		t.Errorf("%s: %d datagrams sent, %d received and %d dropped", name, from.sent.Load(), received, dropped(t, to))
	}
	if segmented == 0 || segmented*4 > from.sent.Load() {
		t.Errorf("%s: %d segmented messages of %d datagrams", name, segmented, from.sent.Load())
	}
	if marked == 0 || ecn*10 < received*9 {
		t.Errorf("%s: %d calls with an ECN mark, %d of %d datagrams arrived with one", name, marked, ecn, received)
	}
	if largest > 1500 {
		t.Errorf("%s: a datagram of %d bytes arrived: not cut", name, largest)
	}
}
