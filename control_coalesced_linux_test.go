// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux && !android && !batchconn_portable

package batchconn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/batchconn/batchconn/internal/netns"
	"github.com/batchconn/batchconn/internal/sys"
)

// A controlReader is a way to read datagrams with their control messages.
type controlReader struct {
	name string
	read func(c *Conn, got func(p, control []byte)) error
}

var controlReaders = []controlReader{
	{"ReadMsgUDPAddrPort", func(c *Conn, got func(p, control []byte)) error {
		buf, oob := make([]byte, 100), make([]byte, 256)
		n, oobn, _, _, err := c.ReadMsgUDPAddrPort(buf, oob)
		if err == nil {
			got(buf[:n], oob[:oobn])
		}
		return err
	}},
	{"ReceiveMessages", func(c *Conn, got func(p, control []byte)) error {
		msgs := make([]InputMessage, 4) // less than a run
		for i := range msgs {
			msgs[i] = InputMessage{Vectors: [][]byte{make([]byte, 100)}, Control: make([]byte, 256)}
		}
		n, err := c.ReceiveMessages(nil, msgs, 0)
		for _, m := range msgs[:n] {
			got(m.Vectors[0][:m.BytesReceived], m.Control[:m.ControlReceived])
		}
		return err
	}},
	{"ReadBatch", func(c *Conn, got func(p, control []byte)) error {
		ms := make([]ipv4.Message, 30) // more than a run
		for i := range ms {
			ms[i].Buffers, ms[i].OOB = [][]byte{make([]byte, 100)}, make([]byte, 256)
		}
		n, err := c.ReadBatch(ms, 0)
		for _, m := range ms[:n] {
			got(m.Buffers[0][:m.N], m.OOB[:m.NN])
		}
		return err
	}},
}

// markedFields are those that marked runs are read with.
const markedFields = fromHeaders | ControlTime

// coalescingConn is a Conn that coalesces and asks for control messages.
func coalescingConn(t testing.TB, u *net.UDPConn, which ControlFlags) *Conn {
	t.Helper()
	growBuffer(u)
	c := newConn(t, u, &Config{GRO: GROOn})
	if s := c.Stats(); !s.GRO {
		t.Skip(s.GROReason)
	}
	if err := c.ReceiveControl(which); err != nil {
		t.Fatal(err)
	}
	if !c.optionOn() {
		t.Fatal("GROOn, and coalescing is off after ReceiveControl")
	}
	return c
}

// runMark is the mark of run i. Each differs from the one before by TTL or ECN
// alone, in turn.
func runMark(i int) ControlMessage {
	return ControlMessage{Flags: ControlTOS | ControlTTL, TOS: i / 2 % 4, TTL: 10 + (i+1)/2}
}

// markedRuns are datagrams that say which run they are of, and are marked as
// it.
func markedRuns(to netip.AddrPort, runs int) (msgs []OutputMessage, coalesced int) {
	for i := range runs {
		mark := runMark(i)
		control := mark.Append(nil, to.Addr())
		for k := range runLength(i) {
			p := append(contents(i, 40), byte(i), byte(k))
			msgs = append(msgs, OutputMessage{Addr: to, Vectors: [][]byte{p}, Control: control})
		}
		if runLength(i) > 1 {
			coalesced += runLength(i)
		}
	}
	return msgs, coalesced
}

// TestControlCoalesced: each datagram that came in a coalesced message has the
// mark of its own run, whichever call reads it.
func TestControlCoalesced(t *testing.T) {
	for _, p := range paths {
		for _, way := range controlReaders {
			t.Run(p.name+"/"+way.name, func(t *testing.T) {
				s := newConn(t, listen(t, p.network, p.from), nil)
				r := coalescingConn(t, listen(t, p.receives, p.host), markedFields)
				msgs, coalesced := markedRuns(netip.AddrPortFrom(p.to, r.port()), 40)
				here := ControlMessage{Local: p.local, Dst: p.local, IfIndex: loopbackIndex(t)}
				readMarked(t, s, r, way, msgs, here)
				if st := r.Stats(); st.Coalesced != uint64(coalesced) || st.Received != uint64(len(msgs)) {
					t.Errorf("%+v; want %d coalesced of %d: no test", st, coalesced, len(msgs))
				}
			})
		}
	}
}

// TestControlCoalescedOverWire: so it is where the receiving kernel merges what
// arrives. All runs arrive as if at once, but those of other marks stay apart.
func TestControlCoalescedOverWire(t *testing.T) {
	netns.Run(t, func(t *testing.T, ns *netns.Namespace) {
		netns.Check(t, netns.OneProcessor())
		w, err := ns.Wire(netns.WireConfig{FlushTimeout: 5 * time.Millisecond})
		netns.Check(t, err)
		defer w.Close()
		for _, network := range []string{"udp4", "udp6"} {
			for _, way := range controlReaders {
				t.Run(network+"/"+way.name, func(t *testing.T) {
					testMarkedOverWire(t, w, network, way)
				})
			}
		}
	})
}

func testMarkedOverWire(t *testing.T, w *netns.Wire, network string, way controlReader) {
	if !w.Near.Addr(network).IsValid() {
		t.Skip("the system has no IPv6")
	}
	u, err := w.Far.Listen(network)
	netns.Check(t, err)
	s := newConn(t, u, nil)
	u, err = w.Near.Listen(network)
	netns.Check(t, err)
	auto := newConn(t, u, nil)
	if err := auto.ReceiveControl(markedFields); err != nil {
		t.Fatal(err)
	}
	if st := auto.Stats(); !st.GRO {
		t.Skip(st.GROReason) // before 6.9 marks are merged
	}
	u, err = w.Near.Listen(network)
	netns.Check(t, err)
	r := coalescingConn(t, u, markedFields)
	msgs, _ := markedRuns(addrPortOf(r), 40)
	near := w.Near.Addr(network)
	readMarked(t, s, r, way, msgs, ControlMessage{Local: near, Dst: near, IfIndex: w.Near.Link.Index()})
	if st := r.Stats(); st.Coalesced < uint64(len(msgs))/2 || st.Received != uint64(len(msgs)) {
		t.Errorf("%+v: too few were coalesced of %d", st, len(msgs))
	}
}

// readMarked sends marked runs and reads them. here is what the control
// messages say beside the mark.
func readMarked(t *testing.T, s, r *Conn, way controlReader, msgs []OutputMessage, here ControlMessage) {
	t.Helper()
	before := time.Now().Round(0)
	if err := sendAll(s, nil, msgs); err != nil {
		t.Fatal(err)
	}
	r.SetReadDeadline(time.Now().Add(patience))
	for n := 0; n < len(msgs) && !t.Failed(); {
		err := way.read(r, func(payload, control []byte) {
			if string(payload) != string(msgs[n].Vectors[0]) {
				t.Errorf("datagram %d is %x, want %x", n, payload, msgs[n].Vectors[0])
			}
			var m ControlMessage
			err := m.Parse(control)
			want := runMark(int(msgs[n].Vectors[0][40]))
			want.Flags, want.Local, want.Dst, want.IfIndex, want.Time = markedFields, here.Local, here.Dst, here.IfIndex, m.Time
			if err != nil || m != want || m.Time.Before(before) || m.Time.After(time.Now().Round(0)) {
				t.Errorf("datagram %d, sent after %v: %+v, %v\nwant %+v", n, before, m, err, want)
			}
			n++
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestReceiveControlKeepsCoalescing: coalescing stays on where the kernel keeps
// datagrams of different marks apart, and goes off where it does not.
func TestReceiveControlKeepsCoalescing(t *testing.T) {
	in, out, to := readPair(t, nil)
	if st := in.Stats(); !st.GRO {
		t.Skip(st.GROReason)
	}
	makeDeep(t, in, out, to)
	if !in.optionOn() {
		t.Fatal("the queue was deep, and coalescing is off")
	}
	if err := in.ReceiveControl(ControlTOS | ControlTTL); err != nil {
		t.Fatal(err)
	}
	merges := ""
	in.recv.control(func(fd uintptr) { merges = sys.MergesMarks(fd, false) })
	if st := in.Stats(); in.optionOn() != (merges == "") || st.GROReason != merges {
		t.Errorf("coalescing is %v, %q; the kernel merges marks: %q", in.optionOn(), st.GROReason, merges)
	}
}

// TestReceiveControlWhileCoalescing changes the options under readers of all
// kinds, some of which are parked. They get each datagram once, whole, and
// never with a mark that is another's.
func TestReceiveControlWhileCoalescing(t *testing.T) {
	for _, mode := range []GROMode{GROOn, GROAuto} {
		t.Run(fmt.Sprint(mode), func(t *testing.T) {
			in, out, to := readPair(t, &Config{GRO: mode})
			if st := in.Stats(); !st.GRO {
				t.Skip(st.GROReason)
			}
			if mode == GROAuto {
				makeDeep(t, in, out, to)
			}
			s := &controlStorm{t: t, in: in, out: out, to: to}
			wait := s.startReaders()
			for round := range 200 {
				if round%2 == 0 {
					s.switchWhile(s.sendRuns)
				} else {
					s.switchAtRandom(5) // most readers are parked
					s.sendRuns()
				}
				await(t, "all to be read", func() bool { return s.read.Load() == int64(s.sent) })
			}
			in.Close()
			atOnce(t, "the end of the readers", wait)
			if st := in.Stats(); st.Coalesced == 0 {
				t.Errorf("%+v: nothing was coalesced", st)
			}
		})
	}
}

// A controlStorm sends marked runs to readers of which the options change.
type controlStorm struct {
	t       *testing.T
	in, out *Conn
	to      netip.AddrPort
	sent    int
	seen    sync.Map // of numbers of datagrams
	read    atomic.Int64
}

const stormFields = ControlTOS | ControlTTL | ControlLocal | ControlTime

// sendRuns sends a few runs. Each datagram says its number and its mark.
func (s *controlStorm) sendRuns() {
	s.t.Helper()
	var msgs []OutputMessage
	for range 1 + rand.IntN(6) {
		mark := runMark(rand.IntN(50))
		control := mark.Append(nil, s.to.Addr())
		for range 1 + rand.IntN(10) {
			p := binary.BigEndian.AppendUint32(nil, uint32(s.sent))
			p = append(p, contents(s.sent, 30)...)
			s.sent++
			msgs = append(msgs, OutputMessage{Addr: s.to, Vectors: [][]byte{append(p, byte(mark.TOS), byte(mark.TTL))}, Control: control})
		}
	}
	if err := sendAll(s.out, nil, msgs); err != nil {
		s.t.Error(err)
	}
}

// startReaders starts two of each kind. They end when the Conn is closed.
func (s *controlStorm) startReaders() (wait func()) {
	var wg sync.WaitGroup
	for i := range 2 * len(controlReaders) {
		way := controlReaders[i%len(controlReaders)]
		wg.Go(func() {
			for {
				err := way.read(s.in, func(p, control []byte) { s.check(way.name, p, control) })
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err != nil {
					s.t.Errorf("%s: %v", way.name, err)
				}
			}
		})
	}
	return wg.Wait
}

func (s *controlStorm) check(way string, p, control []byte) {
	defer s.read.Add(1)
	if len(p) != 36 || string(p[4:34]) != string(contents(int(binary.BigEndian.Uint32(p)), 30)) {
		s.t.Errorf("%s: %x", way, p)
		return
	}
	if _, twice := s.seen.LoadOrStore(binary.BigEndian.Uint32(p), true); twice {
		s.t.Errorf("%s: %x was read before", way, p)
	}
	var m ControlMessage
	err := m.Parse(control)
	if err != nil || m.Flags&^(stormFields|ControlDst|ControlInterface) != 0 ||
		m.Flags&ControlTOS != 0 && m.TOS != int(p[34]) || m.Flags&ControlTTL != 0 && m.TTL != int(p[35]) {
		s.t.Errorf("%s: a datagram with TOS %d and TTL %d has %+v, %v", way, p[34], p[35], m, err)
	}
}

// switchAtRandom changes the options n times.
func (s *controlStorm) switchAtRandom(n int) {
	for range n {
		if err := s.in.ReceiveControl(ControlFlags(rand.Uint32()) & stormFields); err != nil {
			s.t.Error(err)
		}
	}
}

// switchWhile changes the options while f runs.
func (s *controlStorm) switchWhile(f func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					s.switchAtRandom(1)
				}
			}
		})
	}
	f()
	close(done)
	wg.Wait()
}
