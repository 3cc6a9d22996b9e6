// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/batchconn/batchconn/internal/sys"
)

// pieces is room of size bytes in n vectors, some of them empty.
func pieces(n, size int) (vectors [][]byte) {
	p := make([]byte, size)
	for i := range n {
		k := min(len(p), max(0, (size+n-1)/n+i%2))
		vectors = append(vectors, p[:k:k])
		p = p[k:]
	}
	vectors[n-1] = append(vectors[n-1], p...)
	return vectors
}

// TestReceiveManyVectors: more vectors than the kernel takes, alone and between
// others, coalesced and not, with room and without.
func TestReceiveManyVectors(t *testing.T) {
	for name, mode := range map[string]GROMode{"plain": GROOff, "coalesced": GROOn} {
		for _, n := range []int{1023, 1024, 1025, 3000} {
			t.Run(fmt.Sprint(name, " ", n), func(t *testing.T) {
				in, out, to := readPair(t, &Config{GRO: mode})
				for _, room := range []int{1200, 1199, 5000, 0} {
					testManyVectors(t, in, out, to, n, room)
				}
			})
		}
	}
}

func testManyVectors(t *testing.T, in, out *Conn, to netip.AddrPort, n, room int) {
	t.Helper()
	sent := &vectorDatagrams{from: addrPortOf(out), room: room}
	in.SetReadDeadline(time.Now().Add(patience))

	sent.send(t, out, to)
	msgs := make([]InputMessage, vectorCount)
	for i := range msgs {
		msgs[i].Vectors = pieces([]int{1, n, 2, n, n, 1}[i], room) // alone and not
	}
	if k, err := in.ReceiveMessages(nil, msgs, MsgWaitAll); k != vectorCount || err != nil {
		t.Fatalf("ReceiveMessages: %d, %v", k, err)
	}
	for i, m := range msgs {
		sent.check(t, "ReceiveMessages", i, m)
	}

	sent.send(t, out, to)
	for i := range vectorCount {
		m := InputMessage{Vectors: pieces(n, room)}
		k, err := in.ReceiveMessage(nil, &m, 0)
		if err != nil || k != m.BytesReceived {
			t.Fatalf("ReceiveMessage: %d, %v", k, err)
		}
		sent.check(t, "ReceiveMessage", i, m)
	}

	sent.send(t, out, to)
	for i := 0; i < vectorCount; {
		ms := []ipv4.Message{{Buffers: pieces(n, room)}, {Buffers: pieces(n, room)}}
		k, err := in.ReadBatch(ms, 0)
		if k <= 0 || err != nil {
			t.Fatalf("ReadBatch: %d, %v", k, err)
		}
		for _, m := range ms[:k] {
			from := unmapped(m.Addr.(*net.UDPAddr).AddrPort())
			sent.check(t, "ReadBatch", i, InputMessage{Vectors: m.Buffers, Addr: from, BytesReceived: m.N, Flags: m.Flags})
			i++
		}
	}
	if k, _, err := in.ReceiveFrom(nil, make([]byte, 10), MsgDontWait); !errors.Is(err, ErrWouldBlock) {
		t.Errorf("something is left: %d, %v", k, err)
	}
}

const vectorSize, vectorCount = 1200, 6

// vectorDatagrams are vectorCount datagrams of vectorSize bytes that from
// sends. Their receiver has room bytes for each.
type vectorDatagrams struct {
	from netip.AddrPort
	room int
}

func (d *vectorDatagrams) send(t *testing.T, out *Conn, to netip.AddrPort) {
	t.Helper()
	var all []byte
	for i := range vectorCount {
		all = append(all, contents(i, vectorSize)...)
	}
	if err := sendAll(out, nil, AppendSegments(nil, to, all, vectorSize, nil)); err != nil {
		t.Fatal(err)
	}
}

// check makes sure that m is datagram i, as much of it as there is room for.
func (d *vectorDatagrams) check(t *testing.T, what string, i int, m InputMessage) {
	t.Helper()
	want := contents(i, vectorSize)[:min(vectorSize, d.room)]
	if p := bytes.Join(m.Vectors, nil)[:min(m.BytesReceived, d.room)]; m.BytesReceived != len(want) || !bytes.Equal(p, want) || m.Addr != d.from {
		t.Errorf("%s, room %d: datagram %d is %d, %s, from %v", what, d.room, i, m.BytesReceived, brief(p), m.Addr)
	}
	if (m.Flags&MsgTruncated != 0) != (d.room < vectorSize) {
		t.Errorf("%s, room %d: datagram %d has flags %#x", what, d.room, i, m.Flags)
	}
}

// TestReceiveManyMessages: more messages than one call of the kernel's takes,
// in order.
func TestReceiveManyMessages(t *testing.T) {
	for name, mode := range map[string]GROMode{"plain": GROOff, "coalesced": GROOn} {
		for _, segmented := range []GSOMode{GSOAuto, GSOOff} {
			for _, n := range []int{0, 1024, 1025, 5000} {
				t.Run(fmt.Sprint(name, " ", segmented, " ", n), func(t *testing.T) {
					in, _, to := readPair(t, &Config{GRO: mode})
					out := newConn(t, far.listen(t, "udp4", "127.0.0.1"), &Config{GSO: segmented})
					testManyMessages(t, in, out, to, n)
				})
			}
		}
	}
}

func testManyMessages(t *testing.T, in, out *Conn, to netip.AddrPort, n int) {
	const size = 20
	msgs := make([]InputMessage, n)
	for i := range msgs {
		msgs[i].Vectors = [][]byte{make([]byte, size)}
	}
	sent := make(chan error, 1)
	go func() { // no more at once than any buffer holds, unless read meanwhile
		var all []OutputMessage
		for i := range n {
			all = append(all, OutputMessage{Addr: to, Vectors: [][]byte{contents(i, size)}})
		}
		for i := 0; i < n; i += 100 {
			if err := sendAll(out, nil, all[i:min(i+100, n)]); err != nil {
				sent <- err
				return
			}
			for end := time.Now().Add(patience); in.Stats().Received+100 < uint64(i) && time.Now().Before(end); {
				time.Sleep(50 * time.Microsecond)
			}
		}
		sent <- nil
	}()
	in.SetReadDeadline(time.Now().Add(patience))
	k, err := in.ReceiveMessages(nil, msgs, MsgWaitAll)
	if k != n || err != nil {
		t.Fatalf("%d, %v; %+v", k, err, in.Stats())
	}
	if err := receive(t, "the sender", sent); err != nil {
		t.Fatal(err)
	}
	for i, m := range msgs {
		if p := m.Vectors[0][:m.BytesReceived]; !bytes.Equal(p, contents(i, size)) {
			t.Fatalf("datagram %d is %s", i, brief(p))
		}
	}
	if s := in.Stats(); s.Received != uint64(n) || s.Dropped != 0 {
		t.Errorf("%+v", s)
	}
}

// TestReceiveTakesWhatIsThere: one call takes all that is queued, where a call
// to the kernel brings one datagram too.
func TestReceiveTakesWhatIsThere(t *testing.T) {
	if !sys.Receives {
		t.Skip("a look for more may wait here")
	}
	for name, single := range map[string]bool{"as the system does": false, "one a call": true} {
		for _, flags := range []int{0, MsgDontWait} {
			t.Run(fmt.Sprint(name, " ", flags), func(t *testing.T) {
				in, out, to := readPair(t, &Config{GRO: GROOff})
				if single {
					in.send.noBatchCall.Store(true)
				}
				testTakesAll(t, in, out, to, flags)
			})
		}
	}
}

func testTakesAll(t *testing.T, in, out *Conn, to netip.AddrPort, flags int) {
	const burst = 20
	msgs := make([]InputMessage, 64)
	for i := range msgs {
		msgs[i].Vectors = [][]byte{make([]byte, 100)}
	}
	most := 0
	for range 20 { // a busy kernel delivers late
		for i := range burst {
			if _, err := out.SendTo(nil, contents(i, 10), to, 0); err != nil {
				t.Fatal(err)
			}
		}
		for read := 0; read < burst; {
			if err := in.WaitReadable(nil); err != nil {
				t.Fatal(err)
			}
			n, err := in.ReceiveMessages(nil, msgs, flags)
			if err != nil {
				t.Fatal(err)
			}
			for i := range n {
				if p := msgs[i].Vectors[0][:msgs[i].BytesReceived]; !bytes.Equal(p, contents(read+i, 10)) {
					t.Fatalf("datagram %d is %s", read+i, brief(p))
				}
			}
			read += n
			most = max(most, n)
		}
	}
	if most != burst {
		t.Errorf("of %d that were there a call took %d at most", burst, most)
	}
}
