// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package main

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/batchconn/batchconn"
	"github.com/batchconn/batchconn/internal/harness"
)

// sendings are how the bursts come: to a reader it matters whether the kernel
// still has them in one piece.
var sendings = []way{
	{"plain", openConn(&batchconn.Config{GSO: batchconn.GSOOff})},
	{"segmented", openConn(nil)},
}

// A lockstep is one way of reading what comes in one way.
type lockstep struct {
	burst    harness.Burst
	receiver *receiver
	sender   *sender
	socket   *socket
}

func newLockstep(opt *options, burst int, how *reading, w way) (l *lockstep, err error) {
	one := *opt
	one.batch, one.receivers, one.senders = burst, 1, 1
	l = &lockstep{burst: harness.Burst{Mail: harness.NewMailbag(burst, opt.size)}}
	if l.receiver, err = newReceiver(0, &one, how, l.burst.Mail); err != nil {
		return nil, err
	}
	if l.socket, err = openSocket(w, l.receiver.addr); err != nil {
		l.receiver.in.conn.Close()
		return nil, err
	}
	l.sender = newSender(0, &one, []netip.AddrPort{l.receiver.addr})
	send := l.socket.sender(l.sender.slots)
	var never atomic.Bool
	l.burst.Send = func() error { return l.sender.sendBatch(send, 0, burst, &never) }
	l.burst.Read, l.burst.SetReadDeadline = l.receiver.in.read, l.receiver.in.conn.SetReadDeadline
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
	var times harness.BurstTimes
	for end := time.Now().Add(d); ctx.Err() == nil; {
		n, err := l.burst.Run(&times)
		if err != nil {
			return s, err
		}
		for i := range n {
			l.receiver.take(l.burst.Mail.Datagram(i))
		}
		if !time.Now().Before(end) {
			break
		}
	}
	s.elapsed, s.cpu, s.readCPU = times.Read, times.SendCPU, times.ReadCPU
	s.calls = l.socket.callsNow() - calls
	s.sent = l.sender.sequence[0]
	s.tally, s.uncounted = l.receiver.result(l.sender.sequence)
	s.moved = s.tally.arrived
	return s, nil
}

// maxBurst is how many datagrams at most are sent before they are read.
const maxBurst = 1024

// findBurst tries how many datagrams a receive buffer holds for package net's
// reader.
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
