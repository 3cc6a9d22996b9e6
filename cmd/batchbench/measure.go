// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package main

import (
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/batchconn/batchconn/internal/harness"
)

const (
	// roundTime is about how long a way sends before it is another's turn.
	roundTime = 200 * time.Millisecond

	// readingPart is the part of that for a way of reading: there are more of
	// them, and nothing else runs meanwhile.
	readingPart = 2
)

// rounds says how often each has its turn, and for how long.
func (opt *options) rounds() (n int, each time.Duration) {
	n = int(min(max(opt.duration/roundTime, 1), math.MaxInt)) // which is less where an int has 32 bits
	return n, opt.duration / time.Duration(n)
}

// slotCount is how many slots each sender has: whole batches, and at least one
// slot for each receiver.
func slotCount(opt *options) int {
	return (max(opt.batch, opt.receivers) + opt.batch - 1) / opt.batch * opt.batch
}

// A bench is all that a measurement needs.
type bench struct {
	opt        *options
	collectors []*collector // none with -to
	receivers  []*receiver  // of all collectors, by index
	senders    []*sender
	contenders []contender
}

// A contender has a row of the table.
type contender struct {
	result *result
	run    func(ctx context.Context, d time.Duration) (sample, error)
	close  func()
}

// measure lets all take turns and prints the tables.
func measure(ctx context.Context, opt *options, stdout io.Writer, p *progress) (code int, err error) {
	b, results, err := newBench(opt)
	if err != nil {
		return exitFailed, err
	}
	defer b.close()
	b.alternate(ctx, results, p)
	p.clear()
	if ctx.Err() != nil {
		results.interrupted = interruptedBy(ctx)
	}
	if err := results.print(stdout); err != nil {
		return exitFailed, err
	}
	return results.code()
}

// alternate lets all take turns until the rounds are over or ctx is done.
func (b *bench) alternate(ctx context.Context, results *results, p *progress) {
	harness.Alternate(results.rounds, len(b.contenders), func(round, i int) error {
		c := &b.contenders[i]
		if c.result.err != nil {
			return ctx.Err()
		}
		p.show("round %d of %d: %-18s %s", round+1, results.rounds, c.result.title(), c.result.soFar())
		each := results.each
		if c.result.how != nil {
			each /= readingPart
		}
		var s sample
		s, c.result.err = c.run(ctx, each)
		results.add(c.result, round, &s)
		if c.result.err != nil {
			c.close()
		}
		return ctx.Err()
	})
}

// newBench opens all sockets. What cannot be opened is left out; its result
// says why.
func newBench(opt *options) (*bench, *results, error) {
	b := &bench{opt: opt}
	res, err := b.open()
	if err != nil {
		b.close()
		return nil, nil, err
	}
	return b, res, nil
}

func (b *bench) open() (res *results, err error) {
	opt := b.opt
	var to []netip.AddrPort
	if opt.to != "" {
		to = []netip.AddrPort{unmapped(opt.addr)}
	} else if to, err = b.openReceivers(); err != nil {
		return nil, err
	}
	for i := range opt.senders {
		b.senders = append(b.senders, newSender(i, opt, to))
	}
	res = newResults(opt, to[0])
	for i, w := range ways {
		b.compete(&res.ways[i], func() (contender, error) { return b.newSending(w, to[0]) })
	}
	if opt.to != "" {
		return res, nil
	}
	if res.burst, err = findBurst(opt); err != nil {
		return nil, err
	}
	for i := range res.readings {
		r := &res.readings[i]
		b.compete(r, func() (contender, error) { return newReadingOf(opt, res.burst, r) })
	}
	return res, nil
}

// openReceivers opens those that the senders send to.
func (b *bench) openReceivers() (to []netip.AddrPort, err error) {
	if b.collectors, err = newCollectors(b.opt); err != nil {
		return nil, err
	}
	b.receivers = make([]*receiver, b.opt.receivers)
	to = make([]netip.AddrPort, b.opt.receivers)
	for _, c := range b.collectors {
		for _, r := range c.receivers {
			b.receivers[r.index], to[r.index] = r, r.addr
		}
	}
	return to, nil
}

// compete adds a contender, or says why there is none.
func (b *bench) compete(r *result, open func() (contender, error)) {
	c, err := open()
	if r.err = err; err == nil {
		c.result = r
		b.contenders = append(b.contenders, c)
	}
}

func (b *bench) newSending(w way, to netip.AddrPort) (contender, error) {
	s, err := openSocket(w, to)
	if err != nil {
		return contender{}, err
	}
	run := func(ctx context.Context, d time.Duration) (sample, error) { return b.run(ctx, s, d) }
	return contender{run: run, close: func() { s.conn.Close() }}, nil
}

func newReadingOf(opt *options, burst int, r *result) (contender, error) {
	l, err := newLockstep(opt, burst, r.how, r.by)
	if err != nil {
		return contender{}, err
	}
	return contender{run: l.run, close: l.close}, nil
}

func unmapped(a *net.UDPAddr) netip.AddrPort {
	ap := a.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// openSocket opens a socket that sends to an address.
func openSocket(w way, to netip.AddrPort) (*socket, error) {
	network, local := "udp6", netip.IPv6Unspecified()
	if to.Addr().Is4() {
		network, local = "udp4", netip.IPv4Unspecified()
	}
	if to.Addr().IsLoopback() {
		local = to.Addr()
	}
	u, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0)))
	if err != nil {
		return nil, err
	}
	s, err := w.open(u)
	if err != nil {
		u.Close()
	}
	return s, err
}

func (b *bench) close() {
	for _, c := range b.contenders {
		if c.result.err == nil { // else it is closed
			c.close()
		}
	}
	closeCollectors(b.collectors)
}

// A sample is what one run gave.
type sample struct {
	elapsed   time.Duration // of what is compared; 0: there was no run
	sent      uint64
	moved     uint64        // sent or read while the clock ran
	cpu       time.Duration // of the sending side, if haveCPU
	readCPU   time.Duration // of the reading side, if harness.HaveThreadCPU
	calls     uint64        // if the socket counts them
	tally     tally         // of all receivers
	uncounted uint64        // arrived, but not counted as sent
}

func (s *sample) add(t *sample) {
	s.elapsed += t.elapsed
	s.sent += t.sent
	s.moved += t.moved
	s.cpu += t.cpu
	s.readCPU += t.readCPU
	s.calls += t.calls
	s.tally.add(t.tally)
	s.uncounted += t.uncounted
}

// run sends one way for a while and waits for what arrives.
func (b *bench) run(ctx context.Context, s *socket, d time.Duration) (sample, error) {
	id := rand.Uint64()
	for _, c := range b.collectors {
		if err := c.start(id); err != nil {
			return sample{}, err
		}
	}
	for _, sn := range b.senders {
		sn.prepare(id)
		if sn.send[s] == nil {
			sn.send[s] = s.sender(sn.slots)
		}
	}
	res, err := b.send(ctx, s, d)
	for _, c := range b.collectors {
		expected := uint64(0)
		for _, r := range c.receivers {
			for _, sn := range b.senders {
				expected += sn.sequence[r.index]
			}
		}
		err = errors.Join(err, c.end(expected))
	}
	for _, c := range b.collectors {
		err = errors.Join(err, <-c.done)
		res.readCPU += c.cpu
	}
	sent := make([]uint64, len(b.senders))
	for _, r := range b.receivers {
		for i, sn := range b.senders {
			sent[i] = sn.sequence[r.index]
		}
		t, uncounted := r.result(sent)
		res.tally.add(t)
		res.uncounted += uncounted
	}
	return res, err
}

// send lets all senders send at once until d has passed or ctx is done.
func (b *bench) send(ctx context.Context, s *socket, d time.Duration) (res sample, err error) {
	var stop atomic.Bool
	var wg sync.WaitGroup
	failed := make(chan error, len(b.senders))
	started := make(chan struct{}, len(b.senders))
	if err := s.conn.SetWriteDeadline(time.Time{}); err != nil {
		return sample{}, err
	}
	calls, cpu, begin := s.callsNow(), b.cpu(), time.Now()
	for _, sn := range b.senders {
		wg.Go(func() {
			if err := sn.run(s, &stop, started); err != nil {
				failed <- err
			}
		})
	}
	err = b.wait(ctx, d, started, failed)
	stop.Store(true)
	s.conn.SetWriteDeadline(time.Now()) // wakes senders that wait for room
	wg.Wait()
	if s.flush != nil {
		err = errors.Join(err, s.flush())
	}
	res.elapsed = time.Since(begin)
	res.calls = s.callsNow() - calls
	res.cpu = b.cpu() - cpu
	for _, sn := range b.senders {
		for _, n := range sn.sequence {
			res.sent += n
		}
	}
	res.moved = res.sent
	if err == nil && len(failed) > 0 {
		err = <-failed
	}
	return res, err
}

// cpu is the CPU time of all but the receivers, where that can be told.
func (b *bench) cpu() time.Duration {
	d := harness.ProcessCPU()
	for _, c := range b.collectors {
		d -= c.thread.CPU()
	}
	return d
}

// startTime is how long a run waits for the first datagrams of all senders.
const startTime = time.Second

// wait waits until the senders have sent for d, or one failed, or ctx is done.
func (b *bench) wait(ctx context.Context, d time.Duration, started <-chan struct{}, failed <-chan error) error {
	timer := time.NewTimer(max(d, startTime))
	defer timer.Stop()
	for n := 0; ; {
		select {
		case <-started:
			if n++; n == len(b.senders) {
				timer.Reset(d)
			}
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		}
	}
}

func (s *socket) callsNow() uint64 {
	if s.calls == nil {
		return 0
	}
	return s.calls()
}

// A sender is one goroutine's datagrams. Slot i goes to receiver i modulo the
// number of receivers.
type sender struct {
	index    int
	batch    int
	slots    []slot
	fixed    []uint64 // by slot, what stamp wants
	sequence []uint64 // by receiver: the next number, and so how many were sent
	send     map[*socket]sendFunc
}

func newSender(index int, opt *options, to []netip.AddrPort) *sender {
	n := slotCount(opt)
	s := &sender{
		index:    index,
		batch:    opt.batch,
		slots:    make([]slot, n),
		fixed:    make([]uint64, n),
		sequence: make([]uint64, len(to)),
		send:     make(map[*socket]sendFunc),
	}
	buf := make([]byte, n*opt.size)
	for i := range s.slots {
		s.slots[i] = slot{p: buf[i*opt.size:][:opt.size:opt.size], to: to[i%len(to)]}
	}
	return s
}

// prepare composes the datagrams of a run, so that only stamping them is left
// to the time that is measured.
func (s *sender) prepare(run uint64) {
	clear(s.sequence)
	for i := range s.slots {
		h := header{run: run, sender: uint16(s.index), receiver: uint16(i % len(s.sequence)), slot: uint32(i)}
		s.fixed[i] = h.compose(s.slots[i].p)
	}
}

// run sends batch after batch until stop, and tells started after the first.
func (s *sender) run(sock *socket, stop *atomic.Bool, started chan<- struct{}) error {
	send := s.send[sock]
	for from, first := 0, true; !stop.Load(); first = false {
		if err := s.sendBatch(send, from, from+s.batch, stop); err != nil {
			if stop.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
				return nil
			}
			return err
		}
		if first {
			started <- struct{}{}
		}
		if from += s.batch; from == len(s.slots) {
			from = 0
		}
	}
	return nil
}

// sendBatch stamps and sends slots[from:to]. When it ends early, the sequence
// numbers of what was not sent are taken back.
func (s *sender) sendBatch(send sendFunc, from, to int, stop *atomic.Bool) error {
	for i := from; i < to; i++ {
		r := i % len(s.sequence)
		stamp(s.slots[i].p, s.fixed[i], s.sequence[r])
		s.sequence[r]++
	}
	for from < to {
		n, err := send(from, to)
		from += n
		if isFull(err) && !stop.Load() {
			runtime.Gosched()
			continue
		}
		if err != nil {
			for i := from; i < to; i++ {
				s.sequence[i%len(s.sequence)]--
			}
			return err
		}
	}
	return nil
}

// isFull reports whether a device's queue is full, which nobody can wait for
// (BSD and macOS, and Linux with IP_RECVERR).
func isFull(err error) bool { return err != nil && errors.Is(err, syscall.ENOBUFS) }
