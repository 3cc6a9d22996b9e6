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
	"fmt"
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

	"github.com/batchconn/batchconn/internal/netns"
	"github.com/batchconn/batchconn/internal/sys"
)

var soakFor = flag.Duration("soak", 0, "how long each of the soak tests sends; by default a second or two")

// TestSoak sends by four names, plain and segmented, to bare sockets and to
// Conns that are each read by four names, at full rate. Meanwhile contexts end,
// deadlines move, Writers flush, and on other sockets UDP_GRO is turned on and
// off and raw readers read. Every datagram that was counted arrives, undamaged
// and once, or is one of a counted drop; and nothing grows.
func TestSoak(t *testing.T) {
	near := func() *net.UDPConn { return listen(t, "udp4", "127.0.0.1") }
	for _, procs := range []int{1, 2, 8} {
		t.Run(fmt.Sprint(procs), func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
			soakAt(t, soakTime()/3, near, near)
		})
	}
}

// TestSoakNarrow is TestSoak where senders have to wait for room again and
// again.
func TestSoakNarrow(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		lo.setTap(soakNarrow)
		near := func() *net.UDPConn {
			u := listen(t, "udp4", "127.0.0.1")
			u.SetWriteBuffer(64 << 10)
			return u
		}
		soakAt(t, soakTime(), near, near)
	})
}

// TestSoakWire is TestSoak over wires: fast ones and a narrow one.
func TestSoakWire(t *testing.T) {
	netns.Run(t, func(t *testing.T, ns *netns.Namespace) {
		for name, cfg := range map[string]netns.WireConfig{
			"at once": {},
			"merging": {FlushTimeout: 100 * time.Microsecond},
			"narrow":  {Bucket: soakNarrow},
		} {
			t.Run(name, func(t *testing.T) {
				w, err := ns.Wire(cfg)
				netns.Check(t, err)
				defer w.Close()
				at := func(e *netns.End) func() *net.UDPConn {
					return func() *net.UDPConn {
						u, err := e.Listen("udp4")
						netns.Check(t, err)
						u.SetWriteBuffer(64 << 10)
						return u
					}
				}
				soakAt(t, soakTime()/3, at(w.Near), at(w.Far))
			})
		}
	})
}

var soakNarrow = netns.Bucket{Rate: 30 << 20, Burst: 64 << 10, Limit: 4 << 20}

func soakTime() time.Duration {
	switch {
	case *soakFor > 0:
		return *soakFor
	case testing.Short():
		return time.Second
	}
	return 2 * time.Second
}

const (
	soakSenders  = 4
	soakHeader   = 12 // sender, receiver, size, number
	soakLargest  = 1200
	soakWindow   = 1 << 18  // datagrams of one flow that are under way at most
	soakUnderWay = 3000     // to a receiver whose buffer is not to overflow
	soakBuffer   = 16 << 20 // which takes these, and what senders have in hand
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

// A soak is senders and receivers at work.
type soak struct {
	t         *testing.T
	end       time.Time
	senders   [soakSenders]*Conn
	writer    *Writer // made of the third
	receivers []*soakReceiver
	others    []*Conn                // on which UDP_GRO is turned on and off, and which are read raw
	counted   [soakSenders][4]uint64 // by receiver, each written by its sender alone
	ended     atomic.Uint64          // calls that a context or a deadline ended
}

// A soakReceiver is a Conn or a bare socket and what arrived there.
type soakReceiver struct {
	s       *soak
	number  int
	addr    netip.AddrPort
	bare    *net.UDPConn
	conn    *Conn // nil: the bare socket is read
	paced   bool  // its buffer never overflows
	sent    atomic.Int64
	arrived atomic.Int64
	mu      [soakSenders]sync.Mutex
	flows   [soakSenders]soakFlow
	readers sync.WaitGroup
}

// soakAt soaks sockets of a near place, which send, and a far one for a while.
func soakAt(t *testing.T, d time.Duration, near, far func() *net.UDPConn) {
	near().Close() // package net's own descriptors come with the first socket
	left := nothingLeft(t)
	s := newSoak(t, near, far)
	lost := lostBefore(t)
	for _, in := range s.receivers {
		in.read()
	}
	s.end = time.Now().Add(d)
	var work sync.WaitGroup
	work.Go(func() { s.send(0, s.sendMessages) })
	work.Go(func() { s.send(1, s.sendEach) })
	work.Go(func() { s.write(2, s.writer) })
	work.Go(func() { s.write(3, s.senders[3]) })
	work.Go(s.moveDeadlines)
	work.Go(s.readStats)
	if sys.HaveBatchCall {
		work.Go(s.disturb)
	}
	time.Sleep(d / 4)
	before := heapNow()
	work.Wait()
	if err := s.writer.Flush(t.Context()); err != nil {
		t.Error("the last Flush:", err)
	}
	s.awaitQuiet()
	if after := heapNow(); after > before+4<<20 {
		t.Errorf("the heap grew from %d to %d bytes", before, after)
	}
	s.check(lostBefore(t) - lost)
	s.close()
	left()
}

func newSoak(t *testing.T, near, far func() *net.UDPConn) *soak {
	s := &soak{t: t}
	for i := range s.counted[0] {
		in := &soakReceiver{s: s, number: i, bare: far()}
		if in.paced = i >= 2 || !sys.HaveBatchCall; in.paced { // without that drops are not counted
			growBuffer(in.bare)
			in.paced = bufferSize(in.bare) >= soakBuffer
		}
		in.addr = addrPortOf(in.bare)
		if i%2 == 1 {
			in.conn = newConn(t, in.bare, nil)
		}
		for j := range in.flows {
			in.flows[j].seen = make([]uint64, soakWindow/64)
		}
		s.receivers = append(s.receivers, in)
	}
	for i := range s.senders {
		s.senders[i] = newConn(t, near(), &Config{GSO: []GSOMode{GSOAuto, GSOOff}[i%2]})
	}
	s.writer = NewWriter(s.senders[2], &WriterConfig{OnError: func(addr netip.AddrPort, err error) {
		t.Errorf("reported to %v: %v", addr, err)
	}})
	for range 2 {
		s.others = append(s.others, newConn(t, near(), &Config{GRO: GROOn}))
	}
	f, err := s.others[1].File() // what is queued at the first raw read would be the Conn's
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	return s
}

func (s *soak) over() bool { return s.t.Failed() || !time.Now().Before(s.end) }

// destination is a receiver that may be sent to.
func (s *soak) destination(r *rand.Rand) *soakReceiver {
	for {
		in := s.receivers[r.IntN(len(s.receivers))]
		if !in.paced || in.sent.Load()-in.arrived.Load() < soakUnderWay || s.over() {
			return in
		}
		time.Sleep(20 * time.Microsecond)
	}
}

// count counts what a sender has sent to receiver to.
func (s *soak) count(sender int, to byte) {
	s.counted[sender][to]++
	s.receivers[to].sent.Add(1)
}

// send sends batches until the end, by send, which says how many of the first
// left.
func (s *soak) send(sender int, send func(ctx context.Context, msgs []OutputMessage, r *rand.Rand) (int, error)) {
	r := rand.New(rand.NewPCG(uint64(sender), 1))
	buffers := make([]byte, 600*soakLargest)
	var msgs []OutputMessage
	for !s.over() {
		msgs = s.batch(r, sender, buffers, msgs[:0])
		ctx, cancel := context.Background(), context.CancelFunc(func() {})
		if r.IntN(4) == 0 {
			ctx, cancel = context.WithTimeout(ctx, time.Duration(r.IntN(2000))*time.Microsecond)
		}
		n, err := send(ctx, msgs, r)
		cancel()
		s.mayEnd(err)
		for _, m := range msgs[:n] {
			s.count(sender, m.Vectors[0][1])
		}
	}
}

// mayEnd makes sure that err is none, or that of a context or a deadline.
func (s *soak) mayEnd(err error) {
	switch {
	case err == nil:
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		s.ended.Add(1)
		runtime.Gosched()
	default:
		s.t.Error(err)
	}
}

// batch makes bursts of datagrams of one size, numbered on from those counted.
func (s *soak) batch(r *rand.Rand, sender int, buffers []byte, msgs []OutputMessage) []OutputMessage {
	next := s.counted[sender]
	for total := 1 + r.IntN(600); len(msgs) < total; {
		in, size := s.destination(r), soakHeader+r.IntN(soakLargest-soakHeader)
		for range min(1+r.IntN(64), total-len(msgs)) {
			p := buffers[:size:size]
			buffers = buffers[size:]
			putSoak(p, sender, in.number, next[in.number])
			next[in.number]++
			msgs = append(msgs, OutputMessage{Addr: in.addr, Vectors: [][]byte{p[:4], p[4:]}})
		}
	}
	return msgs
}

func (s *soak) sendMessages(ctx context.Context, msgs []OutputMessage, r *rand.Rand) (int, error) {
	if r.IntN(2) == 0 {
		return s.senders[0].WriteBatch(xnetMessages(msgs), 0)
	}
	return s.senders[0].SendMessages(ctx, msgs, 0)
}

func (s *soak) sendEach(ctx context.Context, msgs []OutputMessage, _ *rand.Rand) (int, error) {
	return s.senders[1].SendEach(ctx, msgs, 0)
}

// write writes one by one until the end, to a Writer or a Conn.
func (s *soak) write(sender int, c net.PacketConn) {
	r := rand.New(rand.NewPCG(uint64(sender), 1))
	p := make([]byte, soakLargest)
	for i := 0; !s.over(); i++ {
		in, size := s.destination(r), soakHeader+100*(i/500%10)
		putSoak(p[:size], sender, in.number, s.counted[sender][in.number])
		if _, err := c.WriteTo(p[:size], net.UDPAddrFromAddrPort(in.addr)); err != nil {
			s.mayEnd(err)
			continue
		}
		s.count(sender, byte(in.number))
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

// moveDeadlines moves all deadlines until the end, and then clears them.
func (s *soak) moveDeadlines() {
	set := []func(time.Time) error{s.writer.SetWriteDeadline}
	for _, i := range []int{0, 1, 3} { // the other is the Writer's, which would lose what it holds
		set = append(set, s.senders[i].SetWriteDeadline)
	}
	for _, in := range s.receivers {
		set = append(set, in.socket().SetReadDeadline)
	}
	for !s.over() {
		at := time.Time{}
		if rand.IntN(2) == 0 {
			at = time.Now().Add(time.Duration(rand.IntN(3000)-500) * time.Microsecond)
		}
		if err := set[rand.IntN(len(set))](at); err != nil {
			s.t.Error(err)
		}
		time.Sleep(time.Duration(rand.IntN(1000)) * time.Microsecond)
	}
	for _, set := range set {
		if err := set(time.Time{}); err != nil {
			s.t.Error(err)
		}
	}
}

// conns are those whose counters are looked at.
func (s *soak) conns() []*Conn {
	conns := s.senders[:len(s.senders):len(s.senders)]
	for _, in := range s.receivers {
		if in.conn != nil {
			conns = append(conns, in.conn)
		}
	}
	return conns
}

// readStats reads the counters, which never go back.
func (s *soak) readStats() {
	conns := s.conns()
	last := make([]Stats, len(conns))
	for !s.over() {
		for i, c := range conns {
			st, was := c.Stats(), last[i]
			if st.Messages < was.Messages || st.Bytes < was.Bytes || st.Calls < was.Calls || st.Segmented > st.Messages ||
				st.Received < was.Received || st.ReceiveCalls < was.ReceiveCalls || st.Coalesced > st.Received || st.Dropped < was.Dropped {
				s.t.Errorf("%+v after %+v", st, was)
			}
			last[i] = st
		}
		time.Sleep(100 * time.Microsecond)
	}
}

// disturb turns UDP_GRO on and off on other sockets, and reads them raw.
func (s *soak) disturb() {
	raw, err := s.others[1].SyscallConn()
	if err != nil {
		s.t.Error(err)
		return
	}
	s.others[1].SetReadDeadline(s.end.Add(patience))
	for on := true; !s.over(); on = !on {
		control(s.t, s.others[0], func(fd int) error { return sys.SetCoalescing(uintptr(fd), on) })
		if _, err := s.others[0].SendTo(nil, []byte("raw"), addrPortOf(s.others[1]), 0); err != nil {
			s.t.Error(err)
		}
		if n, err := readRaw(raw)(make([]byte, 10)); n != 3 || err != nil {
			s.t.Errorf("a raw read of another socket: %d, %v", n, err)
		}
		time.Sleep(200 * time.Microsecond)
	}
}

// heapNow is how many bytes are reachable.
func heapNow() uint64 {
	runtime.GC()
	runtime.GC()
	var st runtime.MemStats
	runtime.ReadMemStats(&st)
	return st.HeapAlloc
}

// awaitQuiet waits for what is still under way.
func (s *soak) awaitQuiet() {
	arrived := func() (n int64) {
		for _, in := range s.receivers {
			n += in.arrived.Load()
		}
		return n
	}
	for last := int64(-1); arrived() != last; {
		last = arrived()
		time.Sleep(300 * time.Millisecond) // what is on its way is read in less
	}
}

func (s *soak) close() {
	for _, c := range append(s.conns(), s.others...) {
		c.Close()
	}
	for _, in := range s.receivers {
		in.bare.Close()
		atOnce(s.t, "the end of the readers", in.readers.Wait)
	}
}

// check compares what was counted with what was read and dropped. Of the system
// lost is what it counts as lost on the way.
func (s *soak) check(lost uint64) {
	var counted, arrived, messages, parked uint64
	for i, in := range s.receivers {
		n := uint64(0)
		for sender := range s.counted {
			n += s.counted[sender][i]
		}
		in.check(n, lost)
		counted, arrived = counted+n, arrived+uint64(in.arrived.Load())
	}
	for _, c := range s.senders {
		messages, parked = messages+c.Stats().Messages, parked+c.Stats().Parked
	}
	for _, n := range s.counted[3] { // net's own writes, which Stats leave out
		messages += n
	}
	if messages != counted {
		s.t.Errorf("Stats and net's writes make %d messages, the calls %d", messages, counted)
	}
	s.t.Logf("%d datagrams counted, %d arrived, %d lost before the sockets; %d calls ended by contexts and deadlines, %d waits for room",
		counted, arrived, lost, s.ended.Load(), parked)
}

// socket is what is read.
func (in *soakReceiver) socket() net.PacketConn {
	if in.conn != nil {
		return in.conn
	}
	return in.bare
}

// check compares what was sent here with what was read. A drop that a Conn
// counts may be of a whole run.
func (in *soakReceiver) check(sent, lost uint64) {
	t, arrived, run := in.s.t, uint64(in.arrived.Load()), uint64(1)
	dropped, st := uint64(0), Stats{}
	if in.conn != nil {
		run, st = 64, in.conn.Stats()
		dropped = st.Dropped
		if st.Received != arrived {
			t.Errorf("receiver %d read %d; %+v", in.number, arrived, st)
		}
	} else {
		control(t, in.bare, func(fd int) error {
			_, drops := sys.SocketMemory(uintptr(fd))
			dropped = uint64(drops)
			return nil
		})
	}
	missing := sent - arrived
	if arrived > sent || missing < dropped || missing > run*dropped+lost || in.paced && dropped != 0 {
		t.Errorf("receiver %d: %d of %d arrived, %d drops were counted and %d lost before; %+v", in.number, arrived, sent, dropped, lost, st)
	}
	for i := range in.flows {
		if n := in.s.counted[i][in.number]; in.flows[i].top > n {
			t.Errorf("receiver %d has number %d of sender %d, which counted %d", in.number, in.flows[i].top-1, i, n)
		}
	}
	t.Logf("receiver %d: %d of %d, %d drops, %d calls, %d coalesced", in.number, arrived, sent, dropped, st.ReceiveCalls, st.Coalesced)
}

// A soakFlow is what came from one sender: seen has a bit for each of the last
// soakWindow numbers before top.
type soakFlow struct {
	seen []uint64
	top  uint64
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
	return true
}

// read has all that arrives read until Close.
func (in *soakReceiver) read() {
	ways := []func() error{in.receiveMessages, in.readFrom, in.readBatch(in.conn), in.readMsg}
	if in.conn == nil {
		ways = []func() error{in.readBatch(ipv4.NewPacketConn(in.bare))}
	}
	for _, read := range ways {
		in.readers.Go(func() {
			for err := error(nil); !errors.Is(err, net.ErrClosed); {
				if err = read(); !errors.Is(err, net.ErrClosed) {
					in.s.mayEnd(err)
				}
			}
		})
	}
}

// take checks a datagram.
func (in *soakReceiver) take(p []byte) {
	t := in.s.t
	if len(p) < soakHeader || int(p[0]) >= soakSenders || int(p[1]) != in.number || int(binary.BigEndian.Uint16(p[2:])) != len(p) {
		t.Errorf("receiver %d got %s", in.number, brief(p))
		return
	}
	number := binary.BigEndian.Uint64(p[4:])
	if want := soakNoise[number%(1<<15):][:len(p)-soakHeader]; !bytes.Equal(p[soakHeader:], want) {
		t.Errorf("number %d of sender %d is damaged", number, p[0])
	}
	in.mu[p[0]].Lock()
	if !in.flows[p[0]].note(number) {
		t.Errorf("number %d of sender %d arrived again, or after %d more", number, p[0], soakWindow)
	}
	in.mu[p[0]].Unlock()
	in.arrived.Add(1)
}

func (in *soakReceiver) receiveMessages() error {
	msgs := make([]InputMessage, 1+rand.IntN(100))
	for i := range msgs {
		msgs[i].Vectors = pieces(1+i%2, 1500)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.IntN(3000))*time.Microsecond)
	defer cancel()
	n, err := in.conn.ReceiveMessages(ctx, msgs, []int{0, MsgWaitAll}[rand.IntN(2)])
	for _, m := range msgs[:n] {
		in.take(joined(m.Vectors, m.BytesReceived))
	}
	return err
}

func (in *soakReceiver) readFrom() error {
	p := make([]byte, 1500)
	n, _, err := in.conn.ReadFrom(p)
	if err == nil {
		in.take(p[:n])
	}
	return err
}

func (in *soakReceiver) readMsg() error {
	p := make([]byte, 1500)
	n, _, _, _, err := in.conn.ReadMsgUDPAddrPort(p, nil)
	if err == nil {
		in.take(p[:n])
	}
	return err
}

func (in *soakReceiver) readBatch(c interface {
	ReadBatch(ms []ipv4.Message, flags int) (int, error)
}) func() error {
	ms := make([]ipv4.Message, 64)
	for i := range ms {
		ms[i].Buffers = [][]byte{make([]byte, 1500)}
	}
	return func() error {
		n, err := c.ReadBatch(ms[:1+rand.IntN(len(ms))], 0)
		for _, m := range ms[:max(n, 0)] {
			in.take(m.Buffers[0][:m.N])
		}
		return err
	}
}

// lostBefore is how many packets the system has dropped where no socket knows
// of them: behind the devices (net.core.netdev_max_backlog), and in the queues
// of this network's.
func lostBefore(t *testing.T) (n uint64) {
	t.Helper()
	for file, columns := range map[string][]int{
		"/proc/net/softnet_stat": {1},
		"/proc/self/net/dev":     {4, 12}, // of what was received and sent
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		base := 10
		if strings.Contains(file, "softnet") {
			base = 16
		}
		for line := range strings.Lines(string(text)) {
			for _, at := range columns {
				if fields := strings.Fields(line); len(fields) > at {
					drops, _ := strconv.ParseUint(fields[at], base, 64)
					n += drops
				}
			}
		}
	}
	return n
}
