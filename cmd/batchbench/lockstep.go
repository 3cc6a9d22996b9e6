// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/batchconn/batchconn"
	"github.com/batchconn/batchconn/internal/harness"
)

// Reading is compared in one thread: it sends a burst and then reads it, and only
// the reading is on the clock. So a reader always finds the same queue, nothing
// is dropped, and nobody is woken.

// sendings are how the bursts come: to a reader it matters whether the kernel
// still has them in one piece.
var sendings = []way{
	{"plain", openConn(&batchconn.Config{GSO: batchconn.GSOOff})},
	{"segmented", openConn(nil)},
}

// A lockstep is one way of reading what comes in one way.
type lockstep struct {
	mail     *harness.Mailbag
	receiver *receiver
	sender   *sender
	socket   *socket
}

func newLockstep(opt *options, burst int, how *reading, w way) (l *lockstep, err error) {
	one := *opt
	one.batch, one.receivers, one.senders = burst, 1, 1
	l = &lockstep{mail: harness.NewMailbag(burst, opt.size)}
	if l.receiver, err = newReceiver(0, &one, how, l.mail); err != nil {
		return nil, err
	}
	if l.socket, err = openSocket(w, l.receiver.addr); err != nil {
		l.receiver.in.conn.Close()
		return nil, err
	}
	l.sender = newSender(0, &one, []netip.AddrPort{l.receiver.addr})
	l.sender.send[l.socket] = l.socket.sender(l.sender.slots)
	return l, nil
}

func (l *lockstep) close() {
	l.receiver.in.conn.Close()
	l.socket.conn.Close()
}

// run sends and reads bursts for a while.
func (l *lockstep) run(ctx context.Context, d time.Duration) (s sample, err error) {
	runtime.LockOSThread() // whose CPU time is read before and after
	defer runtime.UnlockOSThread()
	id := rand.Uint64()
	l.receiver.begin(id)
	l.sender.prepare(id)
	calls := l.socket.callsNow()
	for end := time.Now().Add(d); ctx.Err() == nil; {
		if err = l.burst(&s); err != nil || !time.Now().Before(end) {
			break
		}
	}
	s.calls = l.socket.callsNow() - calls
	s.sent = l.sender.sequence[0]
	s.tally, s.uncounted = l.receiver.result(l.sender.sequence)
	s.moved = s.tally.arrived
	return s, err
}

// burst sends once and reads all of it.
func (l *lockstep) burst(s *sample) error {
	if err := l.setDeadline(); err != nil {
		return err
	}
	var never atomic.Bool
	cpu0 := harness.ThreadCPU()
	if err := l.sender.sendBatch(l.sender.send[l.socket], 0, l.sender.batch, &never); err != nil {
		return err
	}
	cpu1, begin := harness.ThreadCPU(), time.Now()
	n, err := l.readAll()
	s.elapsed += time.Since(begin)
	cpu2 := harness.ThreadCPU()
	s.cpu += cpu1 - cpu0
	s.readCPU += cpu2 - cpu1
	for i := range n {
		l.receiver.take(l.mail.Datagram(i))
	}
	return err
}

// readAll reads until the mailbag is full. What did not come is lost.
func (l *lockstep) readAll() (n int, err error) {
	const tries = 3 // the process may have been stopped until after the deadline
	for failed := 0; n < len(l.mail.Buffers); {
		k, err := l.receiver.in.read(n)
		n += k
		if err == nil {
			failed = 0
			continue
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, fmt.Errorf("reading: %w", err)
		}
		if failed++; failed == tries {
			return n, nil
		}
		if err := l.setDeadline(); err != nil {
			return n, err
		}
	}
	return n, nil
}

func (l *lockstep) setDeadline() error {
	return l.receiver.in.conn.SetReadDeadline(time.Now().Add(quiet))
}

// maxBurst is the most datagrams that are sent before they are read.
const maxBurst = 1024

// findBurst tries how many datagrams the kernel keeps for package net's reader.
func findBurst(opt *options) (int, error) {
	burst := min(opt.batch, maxBurst, max(1, batchBytes/opt.size))
	for ; ; burst /= 2 {
		l, err := newLockstep(opt, burst, &readings[0], way{"", openNet})
		if err != nil {
			return 0, err
		}
		s, err := l.run(context.Background(), minDuration)
		l.close()
		if err != nil || burst == 1 || s.moved == s.sent {
			return burst, err
		}
	}
}
