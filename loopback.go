// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"net"
	"sync"
	"time"
)

// A loopbackTest sends this process a run of two datagrams, of two bytes and of
// one, and looks at what arrives. An answer is remembered for good. Where
// loopback is down or filtered there is none: then a New tests again, but only
// after loopbackSilence.
//
// There is one test at a time, for all that ask. New waits for it, and no send
// does.
type loopbackTest struct {
	try   func(ip net.IP) (failed, known bool)
	clock func() time.Time // nil: time.Now

	mu       sync.Mutex
	underWay chan struct{} // closed when the test ends; nil if there is none
	answered bool
	failed   bool
	silentAt time.Time // when the last test ended without an answer; zero: none did
}

const (
	loopbackSilence = time.Second

	// loopbackWait is how long each family has to answer.
	loopbackWait = 25 * time.Millisecond
)

// A loopbackResult is what a loopbackTest has found so far.
type loopbackResult int

const (
	loopbackUntested loopbackResult = iota // a test is under way
	loopbackSilent                         // the last one was not answered
	loopbackPassed
	loopbackFailed
)

// result is what is known. With wait it waits for a test that is under way or
// due. Without, it starts a test that was never made: the New of that Conn had
// no reason to.
func (t *loopbackTest) result(wait bool) loopbackResult {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.underWay == nil && t.dueLocked(wait) {
		t.underWay = make(chan struct{})
		go t.run()
	}
	if ended := t.underWay; wait && ended != nil {
		t.mu.Unlock()
		<-ended
		t.mu.Lock()
	}
	switch {
	case t.failed:
		return loopbackFailed
	case t.answered:
		return loopbackPassed
	case t.silentAt.IsZero():
		return loopbackUntested
	}
	return loopbackSilent
}

// dueLocked reports whether to test, in New or by a send.
func (t *loopbackTest) dueLocked(inNew bool) bool {
	if t.answered {
		return false
	}
	return t.silentAt.IsZero() || inNew && t.now().Sub(t.silentAt) >= loopbackSilence
}

func (t *loopbackTest) now() time.Time {
	if t.clock != nil {
		return t.clock()
	}
	return time.Now()
}

// run makes the test.
func (t *loopbackTest) run() {
	failed, known := t.try(net.IPv4(127, 0, 0, 1))
	if !known {
		failed, known = t.try(net.IPv6loopback)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.answered, t.failed = known, failed; !known {
		t.silentAt = t.now()
	}
	close(t.underWay)
	t.underWay = nil
}

// dialSelf makes two sockets for a test, of which out is connected to in.
func dialSelf(ip net.IP) (in, out *net.UDPConn, err error) {
	if in, err = net.ListenUDP("udp", &net.UDPAddr{IP: ip}); err != nil {
		return nil, nil, err
	}
	if out, err = net.DialUDP("udp", nil, in.LocalAddr().(*net.UDPAddr)); err != nil {
		in.Close()
		return nil, nil, err
	}
	return in, out, nil
}
