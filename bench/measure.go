// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package main

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/batchconn/batchconn/bench/internal/way"
	"github.com/batchconn/batchconn/internal/harness"
)

// A contest is all contenders at one work.
type contest struct {
	work    Work
	rs      []receiver
	reader  *reader // nil if nobody reads
	entries []*entry
}

// An entry is one contender in it.
type entry struct {
	contender
	socket  *way.Socket
	senders []way.Sender
	samples []sample

	atOnce, reordered int // of the check
	err               error
}

// A sample is what an entry did in a round.
type sample struct {
	sent, arrived int
	wall, cpu     time.Duration // cpu: of this process, which is that of the senders
}

func newContest(work Work, all []contender) (c *contest, err error) {
	c = &contest{work: work}
	if c.rs, err = openReceivers(work.Receivers); err != nil {
		return nil, err
	}
	for _, ct := range all {
		e := &entry{contender: ct}
		if e.atOnce, e.reordered, e.err = checkArrival(ct.Way, work, c.rs); e.err == nil {
			e.err = e.open(work, c.rs)
		}
		c.entries = append(c.entries, e)
	}
	for _, r := range c.rs {
		r.setBuffer(receiveBuffer)
	}
	if !work.Unread {
		if c.reader, err = startReader(c.rs, work.Size); err != nil {
			c.close()
			return nil, err
		}
	}
	return c, nil
}

func (e *entry) open(work Work, rs []receiver) (err error) {
	l := work.load(rs)
	if e.socket, err = e.Open(&l); err != nil {
		return err
	}
	for range work.Senders {
		e.senders = append(e.senders, e.socket.Sender(way.NewBatch(l, e.Roomy)))
	}
	return nil
}

func (c *contest) close() (err error) {
	for _, e := range c.entries {
		if e.socket != nil {
			e.socket.Close()
		}
	}
	if c.reader != nil {
		err = c.reader.stop()
	}
	closeReceivers(c.rs)
	return err
}

// run lets all send in turn, in another order each round, and returns an error if
// it cannot go on. An entry that fails is out. The first round does not count.
func (c *contest) run(rounds int, slot time.Duration) error {
	runtime.GC() // what came before is not theirs to clean up
	return harness.Alternate(rounds+1, len(c.entries), func(round, i int) error {
		e := c.entries[i]
		if e.err != nil {
			return nil
		}
		s, err := c.sample(e, slot)
		if err != nil {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
		if round > 0 && e.err == nil {
			e.samples = append(e.samples, s)
		}
		return nil
	})
}

// sample lets one entry send for a slot. What fails of the entry's is noted there.
func (c *contest) sample(e *entry, slot time.Duration) (s sample, err error) {
	if c.reader != nil {
		if err := c.reader.begin(); err != nil {
			return s, err
		}
	}
	begin, cpu := time.Now(), harness.ProcessCPU()
	s.sent, e.err = e.send(slot)
	s.wall, s.cpu = time.Since(begin), harness.ProcessCPU()-cpu
	if c.reader == nil {
		return s, nil
	}
	got, err := c.reader.end(s.sent)
	s.arrived = int(got.Datagrams)
	switch {
	case err != nil || e.err != nil:
	case got.Wrong > 0:
		e.err = fmt.Errorf("%d datagrams arrived in another size", got.Wrong)
	case s.arrived == 0 || s.arrived > s.sent:
		e.err = fmt.Errorf("%d of %d datagrams arrived", s.arrived, s.sent)
	}
	return s, err
}

// send lets all senders send and returns when everything has left.
func (e *entry) send(slot time.Duration) (sent int, err error) {
	if len(e.senders) == 1 {
		sent, err = e.senders[0](slot)
	} else {
		sent, err = e.sendAtOnce(slot)
	}
	if err == nil && e.socket.Flush != nil {
		err = e.socket.Flush()
	}
	return sent, err
}

func (e *entry) sendAtOnce(slot time.Duration) (sent int, err error) {
	counts, errs := make([]int, len(e.senders)), make([]error, len(e.senders))
	var wg sync.WaitGroup
	for i, send := range e.senders {
		wg.Go(func() { counts[i], errs[i] = send(slot) })
	}
	wg.Wait()
	for _, n := range counts {
		sent += n
	}
	return sent, errors.Join(errs...)
}
