// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/batchconn/batchconn/internal/netns"
)

var soakFor = flag.Duration("soak", 2*time.Second, "how long each of the soak tests sends")

// TestSoak: at full rate, while contexts end, deadlines move and Writers flush,
// every datagram that was counted arrives, undamaged and once, or is counted as
// dropped at a receive buffer; and nothing grows.
func TestSoak(t *testing.T) { soakAll(t, 0) }

// TestSoakNarrow is TestSoak where senders have to wait for room again and
// again.
func TestSoakNarrow(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		lo.setTap(netns.Bucket{Rate: 30 << 20, Burst: 64 << 10, Limit: 4 << 20})
		soakAll(t, 64<<10)
	})
}

const (
	soakSenders   = 4
	soakReceivers = 8
	soakHeader    = 12 // sender, receiver, size, number
	soakLargest   = 1200
	soakWindow    = 1 << 18 // datagrams of one flow that are under way at most
)

// soakNoise is what datagrams are made of; where in it they begin tells their
// number.
var soakNoise = func() []byte {
	p := make([]byte, 1<<16)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(p)
	return p
}()

func putSoak(p []byte, sender, receiver int, number uint64) {
	p[0], p[1] = byte(sender), byte(receiver)
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	binary.BigEndian.PutUint64(p[4:], number)
	copy(p[soakHeader:], soakNoise[number%(1<<15):])
}

// A soak is a number of senders and receivers at work.
type soak struct {
	t        *testing.T
	end      time.Time
	conns    []*Conn // of senders 0 and 1, of sender 2, of the Writer's
	writer   *Writer
	dest     [soakReceivers]netip.AddrPort
	inboxes  [soakReceivers]*soakInbox
	counted  [soakSenders][soakReceivers]uint64 // each written by its sender alone
	ended    atomic.Uint64                      // calls that a context or a deadline ended
	reported atomic.Uint64
}

func soakAll(t *testing.T, sndbuf int) {
	s := newSoak(t, sndbuf)
	var senders, others, receivers sync.WaitGroup
	for _, in := range s.inboxes {
		receivers.Go(func() { in.receive(t) })
	}
	dropsBefore := softnetDrops(t)
	s.end = time.Now().Add(*soakFor)
	senders.Go(func() { s.send(0, s.sendMessages(s.conns[0])) })
	senders.Go(func() { s.send(1, s.sendEach(s.conns[0])) })
	senders.Go(func() { s.send(2, s.writeBatch(s.conns[1])) })
	senders.Go(func() { s.write(3) })
	others.Go(s.moveDeadlines)
	others.Go(s.readStats)
	before := s.settledHeap(*soakFor / 10)
	others.Wait()
	senders.Wait()
	after := s.settledHeap(0)
	if err := s.writer.Flush(t.Context()); err != nil {
		t.Error("the last Flush:", err)
	}
	s.endInboxes()
	receivers.Wait()
	s.check(softnetDrops(t) - dropsBefore)
	if after > before+8<<20 {
		t.Errorf("the heap grew from %d to %d bytes", before, after)
	}
}

func newSoak(t *testing.T, sndbuf int) *soak {
	s := &soak{t: t}
	for i := range s.inboxes {
		in := newInbox(t, "udp4", "127.0.0.1")
		if err := controlErr(in.conn, option(unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1)); err != nil {
			t.Skip("no counting of drops: ", err)
		}
		s.inboxes[i] = &soakInbox{inbox: in, number: i}
		for j := range s.inboxes[i].flows {
			s.inboxes[i].flows[j].seen = make([]uint64, soakWindow/64)
		}
		s.dest[i] = in.addr
	}
	for range 3 {
		u := listen(t, "udp4", "127.0.0.1")
		if sndbuf > 0 {
			u.SetWriteBuffer(sndbuf)
		}
		c, err := New(u, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		s.conns = append(s.conns, c)
	}
	s.writer = NewWriter(s.conns[2], &WriterConfig{OnError: func(addr netip.AddrPort, err error) {
		s.reported.Add(1)
		t.Errorf("reported to %v: %v", addr, err)
	}})
	return s
}

// send sends batches until the end, by send, which says how many of the first
// left.
func (s *soak) send(sender int, send func(ctx context.Context, msgs []OutputMessage) (int, error)) {
	r := rand.New(rand.NewPCG(uint64(sender), 1))
	buffers := make([]byte, 600*soakLargest)
	var msgs []OutputMessage
	for time.Now().Before(s.end) && !s.t.Failed() {
		msgs = s.batch(r, sender, buffers, msgs[:0])
		ctx, cancel := context.Background(), context.CancelFunc(func() {})
		if r.IntN(4) == 0 {
			ctx, cancel = context.WithTimeout(ctx, time.Duration(r.IntN(2000))*time.Microsecond)
		}
		n, err := send(ctx, msgs)
		cancel()
		s.mayEnd(err)
		for _, m := range msgs[:n] {
			s.counted[sender][m.Vectors[0][1]]++
		}
	}
}

// mayEnd makes sure that err is none, or that of a context or a deadline.
func (s *soak) mayEnd(err error) {
	switch {
	case err == nil:
		return
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		s.ended.Add(1)
	default:
		s.t.Error(err)
	}
}

// batch makes bursts of datagrams of one size, numbered on from those counted.
func (s *soak) batch(r *rand.Rand, sender int, buffers []byte, msgs []OutputMessage) []OutputMessage {
	next := s.counted[sender]
	for total := 1 + r.IntN(600); len(msgs) < total; {
		to, size := r.IntN(soakReceivers), soakHeader+r.IntN(soakLargest-soakHeader)
		for range min(1+r.IntN(64), total-len(msgs)) {
			p := buffers[:size:size]
			buffers = buffers[size:]
			putSoak(p, sender, to, next[to])
			next[to]++
			msgs = append(msgs, OutputMessage{Addr: s.dest[to], Vectors: [][]byte{p[:4], p[4:]}})
		}
	}
	return msgs
}

func (s *soak) sendMessages(c *Conn) func(context.Context, []OutputMessage) (int, error) {
	return func(ctx context.Context, msgs []OutputMessage) (int, error) { return c.SendMessages(ctx, msgs, 0) }
}

func (s *soak) sendEach(c *Conn) func(context.Context, []OutputMessage) (int, error) {
	return func(ctx context.Context, msgs []OutputMessage) (int, error) { return c.SendEach(ctx, msgs, 0) }
}

func (s *soak) writeBatch(c *Conn) func(context.Context, []OutputMessage) (int, error) {
	return func(_ context.Context, msgs []OutputMessage) (int, error) { return c.WriteBatch(xnetMessages(msgs), 0) }
}

// write writes one by one through the Writer until the end.
func (s *soak) write(sender int) {
	r := rand.New(rand.NewPCG(uint64(sender), 1))
	p := make([]byte, soakLargest)
	for i := 0; time.Now().Before(s.end) && !s.t.Failed(); i++ {
		to, size := r.IntN(soakReceivers), soakHeader+100*(i/500%10)
		putSoak(p[:size], sender, to, s.counted[sender][to])
		if _, err := s.writer.WriteToUDPAddrPort(p[:size], s.dest[to]); err != nil {
			s.mayEnd(err)
			continue
		}
		s.counted[sender][to]++
		switch r.IntN(2000) {
		case 0:
			time.Sleep(time.Duration(r.IntN(500)) * time.Microsecond) // an idle Writer
		case 1, 2, 3:
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(r.IntN(1000))*time.Microsecond)
			s.mayEnd(s.writer.Flush(ctx))
			cancel()
		}
	}
}

// moveDeadlines moves all write deadlines until the end, and then clears them.
func (s *soak) moveDeadlines() {
	set := []func(time.Time) error{s.conns[0].SetWriteDeadline, s.conns[1].SetWriteDeadline, s.writer.SetWriteDeadline}
	r := rand.New(rand.NewPCG(9, 9))
	for time.Now().Before(s.end) {
		at := time.Time{}
		if r.IntN(2) == 0 {
			at = time.Now().Add(time.Duration(r.IntN(3000)-500) * time.Microsecond)
		}
		if err := set[r.IntN(len(set))](at); err != nil {
			s.t.Error(err)
		}
		time.Sleep(time.Duration(r.IntN(2000)) * time.Microsecond)
	}
	for _, set := range set {
		if err := set(time.Time{}); err != nil {
			s.t.Error(err)
		}
	}
}

// readStats reads the counters, which never go back.
func (s *soak) readStats() {
	last := make([]Stats, len(s.conns))
	for time.Now().Before(s.end) {
		for i, c := range s.conns {
			st := c.Stats()
			if st.Messages < last[i].Messages || st.Bytes < last[i].Bytes || st.Calls < last[i].Calls || st.Segmented > st.Messages {
				s.t.Errorf("%+v after %+v", st, last[i])
			}
			last[i] = st
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// settledHeap is what is reachable after some time of sending.
func (s *soak) settledHeap(wait time.Duration) uint64 {
	time.Sleep(wait)
	var st runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&st)
	return st.HeapAlloc
}

// endInboxes tells each receiver that nothing comes after this, once there is
// room for it: a mark that is dropped would be counted.
func (s *soak) endInboxes() {
	for _, in := range s.inboxes {
		for last := in.reads.Load(); ; last = in.reads.Load() {
			if time.Sleep(50 * time.Millisecond); in.reads.Load() == last {
				break
			}
		}
		c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(in.addr))
		if err != nil {
			s.t.Fatal(err)
		}
		for deadline := time.Now().Add(patience); !in.ended.Load() && time.Now().Before(deadline); {
			c.Write(endMark) // again, for it too may be dropped
			time.Sleep(10 * time.Millisecond)
		}
		c.Close()
		in.conn.SetReadDeadline(time.Now()) // it has read on, past the marks
	}
}

// check compares what was counted with what arrived and what was dropped.
func (s *soak) check(backlog uint64) {
	var counted, arrived, dropped, messages uint64
	for i, in := range s.inboxes {
		var n, got uint64
		for sender := range s.counted {
			n += s.counted[sender][i]
			got += in.flows[sender].arrived
			if top := in.flows[sender].top; top > s.counted[sender][i] {
				s.t.Errorf("receiver %d has number %d of sender %d, of which %d were counted", i, top-1, sender, s.counted[sender][i])
			}
		}
		if missing := int64(n - got - in.dropped); missing != 0 && backlog == 0 || missing < 0 {
			s.t.Errorf("receiver %d: %d of %d arrived, %d were dropped, %d are missing", i, got, n, in.dropped, missing)
		}
		counted, arrived, dropped = counted+n, arrived+got, dropped+in.dropped
	}
	var parked uint64
	for _, c := range s.conns {
		st := c.Stats()
		messages, parked = messages+st.Messages, parked+st.Parked
	}
	if messages != counted {
		s.t.Errorf("Stats count %d messages, the calls %d", messages, counted)
	}
	s.t.Logf("%d datagrams counted, %d arrived, %d dropped at receivers, %d packets before them; %d calls ended by contexts and deadlines, %d waits",
		counted, arrived, dropped, backlog, s.ended.Load(), parked)
}

// A soakInbox checks what arrives.
type soakInbox struct {
	*inbox
	number  int
	flows   [soakSenders]soakFlow
	dropped uint64 // as the kernel counts (socket(7), SO_RXQ_OVFL)
	reads   atomic.Uint64
	ended   atomic.Bool
}

// A soakFlow is what came from one sender: seen has a bit for each of the last
// soakWindow numbers before top.
type soakFlow struct {
	seen    []uint64
	top     uint64
	arrived uint64
}

// note reports whether the number is a new one.
func (f *soakFlow) note(number uint64) bool {
	if number+soakWindow < f.top {
		return false
	}
	for ; f.top <= number; f.top++ {
		f.seen[f.top/64%uint64(len(f.seen))] &^= 1 << (f.top % 64)
	}
	word, bit := &f.seen[number/64%uint64(len(f.seen))], uint64(1)<<(number%64)
	if *word&bit != 0 {
		return false
	}
	*word |= bit
	f.arrived++
	return true
}

func (in *soakInbox) receive(t *testing.T) {
	pc := ipv4.NewPacketConn(in.conn)
	ms := make([]ipv4.Message, 64)
	for i := range ms {
		ms[i] = ipv4.Message{Buffers: [][]byte{make([]byte, 2048)}, OOB: make([]byte, 64)}
	}
	for {
		n, err := pc.ReadBatch(ms, 0)
		in.reads.Add(1)
		if errors.Is(err, os.ErrDeadlineExceeded) && in.ended.Load() {
			return
		}
		if err != nil {
			t.Error(err)
			return
		}
		for i := range ms[:n] {
			in.take(t, ms[i].Buffers[0][:ms[i].N], ms[i].OOB[:ms[i].NN])
		}
	}
}

func (in *soakInbox) take(t *testing.T, p, oob []byte) {
	if len(oob) > 0 {
		cm, err := unix.ParseSocketControlMessage(oob)
		if err == nil && len(cm) == 1 && cm[0].Header.Type == unix.SO_RXQ_OVFL {
			in.dropped = max(in.dropped, uint64(binary.NativeEndian.Uint32(cm[0].Data)))
		}
	}
	if bytes.Equal(p, endMark) {
		in.ended.Store(true)
		return
	}
	if len(p) < soakHeader || int(p[0]) >= soakSenders || int(p[1]) != in.number || int(binary.BigEndian.Uint16(p[2:])) != len(p) {
		t.Errorf("receiver %d got %s", in.number, brief(p))
		return
	}
	number := binary.BigEndian.Uint64(p[4:])
	if want := soakNoise[number%(1<<15):][:len(p)-soakHeader]; !bytes.Equal(p[soakHeader:], want) {
		t.Errorf("number %d of sender %d is damaged", number, p[0])
	}
	if !in.flows[p[0]].note(number) {
		t.Errorf("number %d of sender %d arrived again, or after %d more", number, p[0], soakWindow)
	}
}

// softnetDrops is how many packets the system has dropped between loopback and
// the sockets, in net.core.netdev_max_backlog, of which no socket knows.
func softnetDrops(t *testing.T) (n uint64) {
	t.Helper()
	text, err := os.ReadFile("/proc/net/softnet_stat")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 {
			drops, _ := strconv.ParseUint(fields[1], 16, 64)
			n += drops
		}
	}
	return n
}
