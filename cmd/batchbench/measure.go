// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package main

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// roundTime is about how long a way sends before it is another's turn.
const roundTime = 200 * time.Millisecond

// rounds says how often each way has its turn, and for how long.
func (opt *options) rounds() (n int, each time.Duration) {
	n = max(int(opt.duration/roundTime), 1)
	return n, opt.duration / time.Duration(n)
}

// slotCount is how many slots each sender has: whole batches, and at least one
// slot for each receiver.
func slotCount(opt *options) int {
	return (max(opt.batch, opt.receivers) + opt.batch - 1) / opt.batch * opt.batch
}

// A bench is all that a measurement needs.
type bench struct {
	opt       *options
	ways      []way
	receivers []*receiver // none with -to
	senders   []*sender
	sockets   []*socket // by way; nil if it could not be opened
}

// measure lets the ways take turns and prints the table.
func measure(ctx context.Context, opt *options, stdout io.Writer, p *progress) (code int, err error) {
	b, results, err := newBench(opt, ways)
	if err != nil {
		return exitFailed, err
	}
	defer b.close()
	for round := range results.rounds {
		for i := range b.ways {
			w := (round + i) % len(b.ways) // no way is always the one after another
			if b.sockets[w] == nil || ctx.Err() != nil {
				continue
			}
			r := &results.ways[w]
			p.show("round %d of %d: %-18s %s", round+1, results.rounds, r.name, r.soFar())
			s, err := b.run(ctx, b.sockets[w], results.each)
			r.samples[round] = s
			if err != nil {
				r.err = err
				b.sockets[w].conn.Close()
				b.sockets[w] = nil
			}
		}
	}
	p.clear()
	results.interrupted = ctx.Err() != nil
	if err := results.print(stdout); err != nil {
		return exitFailed, err
	}
	return results.code()
}

// newBench opens all sockets. A way that cannot be opened is left out; its
// result says why.
func newBench(opt *options, ways []way) (b *bench, res *results, err error) {
	b = &bench{opt: opt, ways: ways, sockets: make([]*socket, len(ways))}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	var to []netip.AddrPort
	if opt.to != "" {
		to = []netip.AddrPort{unmapped(opt.addr)}
	}
	for i := 0; opt.to == "" && i < opt.receivers; i++ {
		r, err := newReceiver(i, opt)
		if err != nil {
			return nil, nil, err
		}
		b.receivers = append(b.receivers, r)
		to = append(to, r.addr)
	}
	for i := range opt.senders {
		b.senders = append(b.senders, newSender(i, opt, to))
	}
	res = newResults(opt, ways, to[0])
	for i, w := range ways {
		if b.sockets[i], err = b.openSocket(w, to[0]); err != nil {
			res.ways[i].err, err = err, nil
		}
	}
	return b, res, nil
}

func unmapped(a *net.UDPAddr) netip.AddrPort {
	ap := a.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// openSocket opens a socket that sends to an address.
func (b *bench) openSocket(w way, to netip.AddrPort) (*socket, error) {
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
	for _, s := range b.sockets {
		if s != nil {
			s.conn.Close()
		}
	}
	for _, r := range b.receivers {
		r.inlet.Close()
	}
}

// A sample is what one run of one way gave.
type sample struct {
	elapsed   time.Duration // 0: there was no run
	sent      uint64
	cpu       time.Duration // if hasCPU
	calls     uint64        // if the socket counts them
	tally     tally         // of all receivers
	uncounted uint64        // arrived, but not counted as sent
}

// run sends one way for a while and waits for what arrives.
func (b *bench) run(ctx context.Context, s *socket, d time.Duration) (sample, error) {
	id := rand.Uint64()
	for _, r := range b.receivers {
		r.start(id)
	}
	for _, sn := range b.senders {
		sn.prepare(id)
		if sn.send[s] == nil {
			sn.send[s] = s.sender(sn.slots)
		}
	}
	res, err := b.send(ctx, s, d)
	for i, r := range b.receivers {
		sent := make([]uint64, len(b.senders))
		for j, sn := range b.senders {
			sent[j] = sn.sequence[i]
		}
		t, uncounted, recvErr := r.finish(sent)
		res.tally.add(t)
		res.uncounted += uncounted
		err = errors.Join(err, recvErr)
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
	s.conn.SetWriteDeadline(time.Now()) // wakes those who wait for room
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
	if err == nil && len(failed) > 0 {
		err = <-failed
	}
	return res, err
}

// cpu is the CPU time of all but the receivers, where that can be told.
func (b *bench) cpu() time.Duration {
	d := processCPU()
	for _, r := range b.receivers {
		d -= r.thread.cpu()
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
