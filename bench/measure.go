// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package main

import (
	"errors"
	"runtime"
	"time"

	"github.com/batchconn/batchconn/bench/internal/calls"
	"github.com/batchconn/batchconn/bench/internal/reading"
	"github.com/batchconn/batchconn/internal/harness"
)

// A contest is all contenders of a part at one work.
type contest struct {
	work    Work
	entries []*entry
	closers []func() error
}

// An entry is one contender in it.
type entry struct {
	contender
	player
	samples []sample

	checked, reordered      int     // of the check
	sendCalls, receiveCalls float64 // of the kernel, for a datagram
	err                     error
}

// A player does a contender's work for about a time. The kernel's calls of
// other processes are counted if that is asked for.
type player interface {
	play(d time.Duration, counting bool) (sample, error)
	close() error
}

// A sample is what an entry did in a round.
type sample struct {
	count         int // of the datagrams that the times are of
	sent, arrived int
	wall, cpu     time.Duration // cpu: of the side that is measured

	sendCPU, receiveCPU time.Duration
	receiveCalls        int // if they were another process's
}

// openers check all contenders of a part at a work, and open those that pass.
var openers = map[part]func(c *contest, m *reading.Medium) error{
	partSending: openSending, partReading: openReading, partOverrun: openReading, partEnds: openEnds,
}

func newContest(w Work, s *site) (*contest, error) {
	m, err := s.medium(&w)
	if err != nil {
		return nil, err
	}
	c := &contest{work: w}
	for _, ct := range contenders(w.Part) {
		c.entries = append(c.entries, &entry{contender: ct})
	}
	if err := openers[w.Part](c, m); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *contest) close() (err error) {
	for _, e := range c.entries {
		if e.player != nil {
			err = errors.Join(err, e.player.close())
		}
	}
	for _, f := range c.closers {
		err = errors.Join(err, f())
	}
	return err
}

// run lets all play in turn, in another order each round. An entry that fails
// is out. The first round does not count.
func (c *contest) run(rounds int, slot time.Duration) {
	runtime.GC() // what came before is not theirs to clean up
	for _, e := range c.entries {
		if e.err != nil || c.work.Part == partOverrun {
			continue
		}
		if _, e.err = e.play(slot/2, false); e.err == nil { // batchconn gets to know its queue
			e.countCalls(slot / 4)
		}
	}
	harness.Alternate(rounds+1, len(c.entries), func(round, i int) error {
		e := c.entries[i]
		if e.err != nil {
			return nil
		}
		var s sample
		if s, e.err = e.play(slot, false); e.err == nil && round > 0 {
			e.samples = append(e.samples, s)
		}
		return nil
	})
}

// countCalls counts those of the kernel, where that can be had.
func (e *entry) countCalls(d time.Duration) {
	sends, err := calls.Count(calls.Send)
	if err != nil {
		return
	}
	receives, err := calls.Count(calls.Receive)
	if err != nil {
		sends.Stop()
		return
	}
	s, err := e.play(d, true)
	sent, received := sends.Stop(), receives.Stop()+s.receiveCalls
	if e.err = err; err == nil {
		e.sendCalls = digits(float64(sent) / float64(s.sent))
		e.receiveCalls = digits(float64(received) / float64(max(1, s.arrived)))
	}
}
