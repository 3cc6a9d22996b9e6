// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/batchconn/batchconn/internal/sys"
)

// TestSoakReceive: four senders, plain and segmenting, to one Conn that four
// readers read by different names, while contexts end, deadlines move and other
// sockets have UDP_GRO turned on and off and raw readers. Each datagram that
// was counted is read undamaged and once, or is one of a counted drop; and
// nothing grows. The flag -soak says how long it takes.
func TestSoakReceive(t *testing.T) {
	if !sys.HaveBatchCall {
		t.Skip("no UDP_GRO to turn on and off, nor drops to count, on the portable path")
	}
	for _, c := range []struct {
		procs int
		paced bool // the receive buffer never overflows
	}{{1, true}, {2, false}, {2, true}, {8, true}} {
		t.Run(fmt.Sprint(c.procs, c.paced), func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(c.procs))
			left := nothingLeft(t)
			s := newReadSoak(t, c.paced)
			s.run(*soakFor / 4)
			s.finish()
			left()
		})
	}
}

// soakUnderWay bounds what is under way if it is paced.
const soakUnderWay = 3000

// A readSoak is a Conn that is read, and its senders and readers at work.
type readSoak struct {
	t       *testing.T
	paced   bool
	in      *Conn
	senders [soakSenders]*Conn
	others  []*Conn // on which UDP_GRO is turned on and off, and which are read raw
	end     time.Time

	counted  [soakSenders]uint64 // each written by its sender alone
	sent     atomic.Int64
	arrived  atomic.Int64
	mu       [soakSenders]sync.Mutex
	flows    [soakSenders]soakFlow
	softnet  uint64
	heap     uint64
	readers  sync.WaitGroup
	timeouts atomic.Uint64
}

func newReadSoak(t *testing.T, paced bool) *readSoak {
	s := &readSoak{t: t, paced: paced, softnet: softnetDrops(t)}
	u := listen(t, "udp4", "127.0.0.1")
	if paced {
		growBuffer(u)
	}
	s.in = newConn(t, u, nil)
	for i := range s.senders {
		s.senders[i] = newConn(t, listen(t, "udp4", "127.0.0.1"), &Config{GSO: []GSOMode{GSOAuto, GSOOff}[i%2]})
		s.flows[i].seen = make([]uint64, soakWindow/64)
	}
	for range 2 {
		s.others = append(s.others, newConn(t, listen(t, "udp4", "127.0.0.1"), &Config{GRO: GROOn}))
	}
	f, err := s.others[1].File() // what is queued at the first raw read would be the Conn's
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	return s
}

func (s *readSoak) run(d time.Duration) {
	s.end = time.Now().Add(d)
	for _, read := range []func(got func([]byte)) error{s.receiveMessages, s.readFrom, s.readBatch, s.readMsg} {
		s.readers.Go(func() { s.read(read) })
	}
	var work sync.WaitGroup
	for i := range s.senders {
		work.Go(func() { s.send(i) })
	}
	work.Go(s.moveDeadlines)
	work.Go(s.disturb)
	time.Sleep(d / 4)
	s.heap = settledHeapNow()
	work.Wait()
}

func settledHeapNow() uint64 {
	runtime.GC()
	runtime.GC()
	var st runtime.MemStats
	runtime.ReadMemStats(&st)
	return st.HeapAlloc
}

// send sends bursts of one size until the end.
func (s *readSoak) send(sender int) {
	r := rand.New(rand.NewPCG(uint64(sender), 3))
	p, to := make([]byte, 64*soakLargest), addrPortOf(s.in)
	var msgs []OutputMessage
	for time.Now().Before(s.end) && !s.t.Failed() {
		if s.paced && s.sent.Load()-s.arrived.Load() > soakUnderWay {
			time.Sleep(20 * time.Microsecond)
			continue
		}
		n, size := 1+r.IntN(64), soakHeader+r.IntN(soakLargest-soakHeader)
		for i := range n {
			putSoak(p[i*size:][:size:size], sender, 0, s.counted[sender]+uint64(i))
		}
		msgs = AppendSegments(msgs[:0], to, p[:n*size], size, nil)
		k, err := s.senders[sender].SendMessages(nil, msgs, 0)
		if err != nil {
			s.t.Error(err)
		}
		s.counted[sender] += uint64(k)
		s.sent.Add(int64(k))
	}
}

// read reads by one name until Close.
func (s *readSoak) read(read func(got func([]byte)) error) {
	for {
		err := read(s.take)
		switch {
		case err == nil:
		case errors.Is(err, net.ErrClosed):
			return
		case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
			s.timeouts.Add(1)
			runtime.Gosched()
		default:
			s.t.Error(err)
			return
		}
	}
}

// take checks a datagram.
func (s *readSoak) take(p []byte) {
	if len(p) < soakHeader || int(p[0]) >= soakSenders || int(binary.BigEndian.Uint16(p[2:])) != len(p) {
		s.t.Errorf("read %s", brief(p))
		return
	}
	number := binary.BigEndian.Uint64(p[4:])
	if want := soakNoise[number%(1<<15):][:len(p)-soakHeader]; !bytes.Equal(p[soakHeader:], want) {
		s.t.Errorf("number %d of sender %d is damaged", number, p[0])
	}
	s.mu[p[0]].Lock()
	if !s.flows[p[0]].note(number) {
		s.t.Errorf("number %d of sender %d was read again, or after %d more", number, p[0], soakWindow)
	}
	s.mu[p[0]].Unlock()
	s.arrived.Add(1)
}

func (s *readSoak) receiveMessages(got func([]byte)) error {
	msgs := make([]InputMessage, 1+rand.IntN(100))
	for i := range msgs {
		msgs[i].Vectors = pieces(1+i%2, 1500)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.IntN(3000))*time.Microsecond)
	defer cancel()
	n, err := s.in.ReceiveMessages(ctx, msgs, []int{0, MsgWaitAll}[rand.IntN(2)])
	for _, m := range msgs[:n] {
		got(joined(m.Vectors, m.BytesReceived))
	}
	return err
}

func (s *readSoak) readFrom(got func([]byte)) error {
	p := make([]byte, 1500)
	n, _, err := s.in.ReadFrom(p)
	if err == nil {
		got(p[:n])
	}
	return err
}

func (s *readSoak) readBatch(got func([]byte)) error {
	ms := make([]ipv4.Message, 8)
	for i := range ms {
		ms[i].Buffers = [][]byte{make([]byte, 1500)}
	}
	n, err := s.in.ReadBatch(ms, 0)
	for _, m := range ms[:n] {
		got(m.Buffers[0][:m.N])
	}
	return err
}

func (s *readSoak) readMsg(got func([]byte)) error {
	p := make([]byte, 1500)
	n, _, _, _, err := s.in.ReadMsgUDPAddrPort(p, nil)
	if err == nil {
		got(p[:n])
	}
	return err
}

// moveDeadlines moves the read deadline until the end, and then clears it.
func (s *readSoak) moveDeadlines() {
	for time.Now().Before(s.end) {
		at := time.Time{}
		if rand.IntN(2) == 0 {
			at = time.Now().Add(time.Duration(rand.IntN(3000)-500) * time.Microsecond)
		}
		if err := s.in.SetReadDeadline(at); err != nil {
			s.t.Error(err)
		}
		time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
	}
	s.in.SetReadDeadline(time.Time{})
}

// disturb turns UDP_GRO on and off on other sockets, and reads them raw.
func (s *readSoak) disturb() {
	raw, err := s.others[1].SyscallConn()
	if err != nil {
		s.t.Error(err)
		return
	}
	s.others[1].SetReadDeadline(s.end.Add(patience))
	last := s.in.Stats()
	for on := true; time.Now().Before(s.end); on = !on {
		control(s.t, s.others[0], func(fd int) error { return sys.SetCoalescing(uintptr(fd), on) })
		if _, err := s.senders[0].SendTo(nil, []byte("raw"), addrPortOf(s.others[1]), 0); err != nil {
			s.t.Error(err)
		}
		if n, err := readRaw(raw)(make([]byte, 10)); n != 3 || err != nil {
			s.t.Errorf("a raw read of another socket: %d, %v", n, err)
		}
		st := s.in.Stats()
		if st.Received < last.Received || st.ReceiveCalls < last.ReceiveCalls || st.Coalesced > st.Received || st.Dropped < last.Dropped {
			s.t.Errorf("%+v after %+v", st, last)
		}
		last = st
		time.Sleep(200 * time.Microsecond)
	}
}

// finish waits for what is still under way, and compares what was counted with
// what was read and dropped.
func (s *readSoak) finish() {
	var counted, arrived uint64
	for _, n := range s.counted {
		counted += n
	}
	for last := int64(-1); s.arrived.Load() != last && s.arrived.Load() < int64(counted); {
		last = s.arrived.Load()
		time.Sleep(300 * time.Millisecond) // what is on its way is read in less
	}
	heap, st := settledHeapNow(), s.in.Stats()
	for _, c := range append(s.others, append(s.senders[:], s.in)...) {
		c.Close()
	}
	s.readers.Wait()
	for i := range s.flows {
		arrived += s.flows[i].arrived
		if s.flows[i].top > s.counted[i] {
			s.t.Errorf("number %d of sender %d, of which %d were counted", s.flows[i].top-1, i, s.counted[i])
		}
	}
	missing, softnet := counted-arrived, softnetDrops(s.t)-s.softnet
	if missing > 64*(st.Dropped+softnet) || missing < st.Dropped || st.Received != arrived || s.paced && softnet == 0 && missing != 0 {
		s.t.Errorf("%d counted, %d read, %d missing, %d before the socket; %+v", counted, arrived, missing, softnet, st)
	}
	if heap > s.heap+4<<20 {
		s.t.Errorf("the heap grew from %d to %d bytes", s.heap, heap)
	}
	s.t.Logf("%d counted, %d read, %d missing, %d calls ended by contexts and deadlines; %+v", counted, arrived, missing, s.timeouts.Load(), st)
}
