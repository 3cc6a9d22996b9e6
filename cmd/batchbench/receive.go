// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/batchconn/batchconn/internal/harness"
)

const (
	// nap is how long a thread that found nothing waits before it looks again.
	nap = 50 * time.Microsecond

	// wakeTime is that of a thread whose reads wait, once a run is over.
	wakeTime = time.Millisecond

	// quiet is how long a thread waits in vain for the rest of a run, where drops
	// are not counted. The kernel has delivered on loopback when the send
	// returns, or is about to.
	quiet = 20 * time.Millisecond

	// latest is that for what was neither read nor dropped: a busy kernel takes
	// its time.
	latest = 500 * time.Millisecond
)

// loopbacks are where receivers listen: at the first that this machine has.
var loopbacks = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}

func listenLoopback() (u *net.UDPConn, err error) {
	var errs []error
	for _, ip := range loopbacks {
		if u, err = harness.ListenUDP(&net.UDPAddr{IP: ip}); err == nil {
			return u, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// A receiver checks what arrives at one socket on loopback.
type receiver struct {
	in    *reader
	addr  netip.AddrPort
	index int
	size  int // of every datagram

	former uint64 // the run before

	// Of the current run:
	run   uint64
	flows []flow // by sender
	tally tally
}

func newReceiver(index int, opt *options, how *reading, mail *harness.Mailbag) (*receiver, error) {
	u, err := listenLoopback()
	if err != nil {
		return nil, fmt.Errorf("receiver %d: %w", index, err)
	}
	addr := unmapped(u.LocalAddr().(*net.UDPAddr))
	in, err := how.open(u, mail)
	if err != nil {
		u.Close()
		return nil, fmt.Errorf("receiver %d: %w", index, err)
	}
	return &receiver{in: in, addr: addr, index: index, size: opt.size, flows: make([]flow, opt.senders)}, nil
}

// begin forgets what was received before a run.
func (r *receiver) begin(run uint64) {
	r.former, r.run = r.run, run
	clear(r.flows)
	r.tally = tally{}
}

// result sums up a run of which each sender counted so many as sent.
func (r *receiver) result(sent []uint64) (t tally, uncounted uint64) {
	for i := range r.flows {
		uncounted += r.flows[i].atLeast(sent[i])
	}
	t = r.tally
	t.arrived -= uncounted
	return t, uncounted
}

// take checks one datagram.
func (r *receiver) take(p []byte) {
	h, intact := parse(p)
	if intact && h.run == r.former && h.run != r.run {
		return // too late, where nobody counts what is dropped: it did not arrive in its run
	}
	if !intact || h.run != r.run || len(p) != r.size || int(h.receiver) != r.index || int(h.sender) >= len(r.flows) {
		r.tally.damaged++
		return
	}
	r.flows[h.sender].note(h.sequence, len(p), &r.tally)
}

// A collector is a thread that reads its receivers in turn. Where reads wait it
// has one of them.
type collector struct {
	how       *reading
	mail      *harness.Mailbag
	receivers []*receiver

	// Of the current run:
	expected atomic.Int64 // how many were sent to its receivers; -1 while they are
	done     chan error
	thread   harness.Thread
	cpu      time.Duration // of the thread, when it is done
	dropped  uint32        // before
}

// newCollectors opens all receivers. So many threads read them that the senders
// keep a processor, unless each read waits.
func newCollectors(opt *options) (all []*collector, err error) {
	threads := min(opt.receivers, max(1, runtime.GOMAXPROCS(0)-1))
	if opt.reading.waits {
		threads = opt.receivers
	}
	for range threads {
		all = append(all, &collector{how: opt.reading, mail: harness.NewMailbag(readCount(opt.size), opt.size)})
	}
	for i := range opt.receivers {
		c := all[i%threads]
		r, err := newReceiver(i, opt, opt.reading, c.mail)
		if err != nil {
			closeCollectors(all)
			return nil, err
		}
		c.receivers = append(c.receivers, r)
	}
	return all, nil
}

func closeCollectors(all []*collector) {
	for _, c := range all {
		for _, r := range c.receivers {
			r.in.conn.Close()
		}
	}
}

// start begins to receive a run.
func (c *collector) start(run uint64) error {
	for _, r := range c.receivers {
		r.begin(run)
		if err := r.in.conn.SetReadDeadline(time.Time{}); err != nil {
			return err
		}
	}
	var err error
	if c.dropped, _, err = c.drops(); err != nil {
		return err
	}
	c.expected.Store(-1)
	c.done = make(chan error, 1)
	started := make(chan struct{})
	go func() {
		runtime.LockOSThread() // its CPU time is not the senders'
		defer runtime.UnlockOSThread()
		c.thread = harness.ThisThread()
		begin := harness.ThreadCPU()
		close(started)
		err := c.read()
		c.cpu = harness.ThreadCPU() - begin
		c.done <- err
	}()
	<-started
	return nil
}

// end tells that no more is sent than was expected. done says when all that
// there is was read.
func (c *collector) end(expected uint64) error {
	c.expected.Store(int64(expected))
	var errs []error
	for _, r := range c.receivers {
		errs = append(errs, r.in.conn.SetReadDeadline(time.Now()))
	}
	return errors.Join(errs...)
}

// read checks what arrives until the run is over and nothing is left.
func (c *collector) read() error {
	step := nap
	if c.how.waits {
		step = wakeTime
	}
	for last := time.Now(); ; {
		expected := c.expected.Load() // before the read: nothing is sent after it
		found, err := c.readEach()
		if err != nil {
			return err
		}
		switch {
		case found:
			last = time.Now()
			continue
		case expected < 0:
			last = time.Now()
		default:
			over, err := c.over(uint64(expected), time.Since(last))
			if over || err != nil {
				return err
			}
		}
		if err := c.rest(step); err != nil {
			return err
		}
	}
}

// over reports whether a run is over, of which nothing was left for some time.
func (c *collector) over(expected uint64, idle time.Duration) (bool, error) {
	came := c.came()
	if came >= expected {
		return true, nil
	}
	dropped, counted, err := c.drops()
	if !counted || err != nil {
		return idle >= quiet, err
	}
	return came+uint64(dropped-c.dropped) >= expected || idle >= latest, nil
}

// drops is what all of its receivers had no room for, if that is counted.
func (c *collector) drops() (n uint32, counted bool, err error) {
	for _, r := range c.receivers {
		if r.in.drops == nil {
			return 0, false, nil
		}
		k, err := r.in.drops()
		if err != nil {
			return 0, false, err
		}
		n += k
	}
	return n, true, nil
}

// rest waits, or lets the next read wait, for no longer than d.
func (c *collector) rest(d time.Duration) error {
	if !c.how.waits {
		harness.Pause(d)
		return nil
	}
	return c.receivers[0].in.conn.SetReadDeadline(time.Now().Add(d))
}

// readEach reads once from each receiver and checks what came.
func (c *collector) readEach() (found bool, err error) {
	for _, r := range c.receivers {
		n, err := r.in.read(0)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return false, fmt.Errorf("receiver %d: %w", r.index, err)
		}
		for i := range n {
			r.take(c.mail.Datagram(i))
		}
		found = found || n > 0
	}
	return found, nil
}

// came is how many datagrams were read in this run, damaged ones too.
func (c *collector) came() (n uint64) {
	for _, r := range c.receivers {
		n += r.tally.arrived + r.tally.damaged + r.tally.duplicated
	}
	return n
}
