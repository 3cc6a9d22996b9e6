// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package main

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/batchconn/batchconn/bench/internal/reading"
	"github.com/batchconn/batchconn/bench/internal/way"
	"github.com/batchconn/batchconn/internal/harness"
)

// A senderPlayer sends to receivers that all of a contest share.
type senderPlayer struct {
	socket  *way.Socket
	senders []way.Sender
	reader  *reader // nil if nobody reads
}

func openSending(c *contest, m *reading.Medium) error {
	rs, err := openReceivers(c.work.Receivers, m)
	if err != nil {
		return err
	}
	c.closers = append(c.closers, func() error { closeReceivers(rs); return nil })
	players := map[*entry]*senderPlayer{}
	for _, e := range c.entries {
		if e.checked, e.reordered, e.err = checkArrival(e.send, c.work, rs); e.err != nil {
			continue
		}
		var p *senderPlayer
		if p, e.err = newSenderPlayer(e.send, c.work, rs); e.err == nil {
			players[e], e.player = p, p
		}
	}
	for _, r := range rs {
		r.setBuffer(receiveBuffer)
	}
	if c.work.Unread {
		return nil
	}
	r, err := startReader(rs, c.work.Size)
	if err != nil {
		return err
	}
	for _, p := range players {
		p.reader = r
	}
	c.closers = append([]func() error{r.stop}, c.closers...)
	return nil
}

func newSenderPlayer(w way.Way, work Work, rs []receiver) (p *senderPlayer, err error) {
	p = new(senderPlayer)
	l := work.load(rs)
	if p.socket, err = w.Open(&l); err != nil {
		return nil, err
	}
	for range work.Senders {
		p.senders = append(p.senders, p.socket.Sender(way.NewBatch(l, w.Roomy)))
	}
	return p, nil
}

func (p *senderPlayer) close() error { return p.socket.Close() }

// play sends for a while.
func (p *senderPlayer) play(d time.Duration, _ bool) (s sample, err error) {
	if p.reader != nil {
		if err := p.reader.begin(); err != nil {
			return s, err
		}
	}
	begin, cpu := time.Now(), harness.ProcessCPU()
	s.sent, err = p.sendAll(d)
	s.wall, s.cpu = time.Since(begin), harness.ProcessCPU()-cpu
	s.count, s.sendCPU = s.sent, s.cpu
	if p.reader == nil {
		return s, err
	}
	got, readErr := p.reader.end(s.sent)
	s.arrived = int(got.Datagrams)
	switch {
	case err != nil || readErr != nil:
		err = errors.Join(err, readErr)
	case got.Wrong > 0:
		err = fmt.Errorf("%d datagrams arrived in another size", got.Wrong)
	case s.arrived == 0 || s.arrived > s.sent:
		err = fmt.Errorf("%d of %d datagrams arrived", s.arrived, s.sent)
	}
	return s, err
}

// sendAll lets all senders send and returns when everything has left.
func (p *senderPlayer) sendAll(d time.Duration) (sent int, err error) {
	if len(p.senders) == 1 {
		sent, err = p.senders[0](d)
	} else {
		sent, err = p.sendAtOnce(d)
	}
	if err == nil && p.socket.Flush != nil {
		err = p.socket.Flush()
	}
	return sent, err
}

func (p *senderPlayer) sendAtOnce(d time.Duration) (sent int, err error) {
	counts, errs := make([]int, len(p.senders)), make([]error, len(p.senders))
	var wg sync.WaitGroup
	for i, send := range p.senders {
		wg.Go(func() { counts[i], errs[i] = send(d) })
	}
	wg.Wait()
	for _, n := range counts {
		sent += n
	}
	return sent, errors.Join(errs...)
}
