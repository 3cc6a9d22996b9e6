// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package main

import (
	"fmt"
	"runtime"
	"time"

	"github.com/batchconn/batchconn/bench/internal/reading"
	"github.com/batchconn/batchconn/internal/harness"
)

const (
	checkBursts = 5

	// smallBuffer is what SO_RCVBUF is set to, which the kernel doubles: to what
	// Linux gives a socket that does not ask.
	smallBuffer = 212992 / 2

	overrunBursts = 5
)

// A readerPlayer reads bursts that it has sent itself, in one thread.
type readerPlayer struct {
	feed    *reading.Feed
	overrun bool
	lossy   bool // the medium may lose some
}

func openReading(c *contest, m *reading.Medium) error {
	w := &c.work
	l := reading.Load{Flows: w.Flows, Burst: w.Burst, Size: w.Size, Segmented: w.Segmented}
	l, err := reading.Fit(l, m)
	if err != nil {
		return err
	}
	w.Burst = l.Burst
	for _, e := range c.entries {
		lost, err := reading.Check(e.receive, l, m, checkBursts)
		if e.err = err; err == nil && lost > 0 {
			e.err = fmt.Errorf("%d datagrams did not arrive", lost)
		}
		if e.err != nil {
			continue
		}
		e.checked = checkBursts * l.Burst
		p := &readerPlayer{overrun: w.Part == partOverrun, lossy: m.Settle > 0}
		if p.feed, e.err = reading.NewFeed(e.receive, l, m); e.err == nil {
			e.player = p
		}
	}
	return nil
}

func (p *readerPlayer) close() error {
	p.feed.Close()
	return nil
}

// play sends and reads for a while; only the reading is timed.
func (p *readerPlayer) play(d time.Duration, _ bool) (s sample, err error) {
	if p.overrun {
		s.sent, s.arrived, err = p.feed.Overrun(smallBuffer, overrunBursts)
		return s, err
	}
	runtime.LockOSThread() // thread time is read before and after
	defer runtime.UnlockOSThread()
	var times harness.BurstTimes
	burst := len(p.feed.Mail.Buffers)
	for begin := time.Now(); time.Since(begin) < d; {
		n, err := p.feed.Run(&times)
		if err != nil {
			return s, err
		}
		if n < burst && !p.lossy {
			return s, fmt.Errorf("%d of %d datagrams arrived", n, burst)
		}
		s.sent += burst
		s.arrived += n
	}
	s.count, s.wall, s.cpu = s.arrived, times.Read, times.ReadCPU
	s.sendCPU, s.receiveCPU = times.SendCPU, times.ReadCPU
	return s, nil
}
