// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/batchconn/batchconn/internal/sys"
)

// coalesceTest is whether this kernel says what it coalesces.
var coalesceTest = &runTest{try: coalescesOn}

// A runTest sends a run of two datagrams, of two bytes and of one, to a socket
// that coalesces, and looks at what is read. Only an answer is remembered:
// where loopback is down or filtered, the next New tests again.
type runTest struct {
	try func(ip net.IP) (failed, known bool)

	mu            sync.Mutex
	failed, known bool
	trying        chan struct{} // closed when the try that is under way has ended
}

const (
	reasonGlued      = "the kernel does not say what it coalesces: a test on loopback was wrong"
	reasonUnanswered = "a test of UDP_GRO on loopback was not answered"
)

// disabledReason is why nothing must be coalesced, as far as the test knows.
func (t *runTest) disabledReason() string {
	t.mu.Lock()
	if !t.known {
		if trying := t.trying; trying != nil {
			t.mu.Unlock()
			<-trying
			t.mu.Lock()
		} else {
			t.test()
		}
	}
	defer t.mu.Unlock()
	switch {
	case !t.known:
		return reasonUnanswered
	case t.failed:
		return reasonGlued
	}
	return ""
}

// test tries. mu is locked, but not meanwhile.
func (t *runTest) test() {
	trying := make(chan struct{})
	t.trying = trying
	t.mu.Unlock()
	var failed, known bool
	for _, ip := range []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback} {
		if failed, known = t.try(ip); known {
			break
		}
	}
	t.mu.Lock()
	t.failed, t.known, t.trying = failed, known, nil
	close(trying)
}

// runTestWait bounds how long one address may take.
const runTestWait = 25 * time.Millisecond

// coalescesOn sends abc in datagrams of two bytes.
func coalescesOn(ip net.IP) (failed, known bool) {
	in, err := net.ListenUDP("udp", &net.UDPAddr{IP: ip})
	if err != nil {
		return false, false
	}
	defer in.Close()
	out, err := net.DialUDP("udp", nil, in.LocalAddr().(*net.UDPAddr))
	if err != nil {
		return false, false
	}
	defer out.Close()
	raw, err := in.SyscallConn()
	if err != nil {
		return false, false
	}
	var refused error
	if err := raw.Control(func(fd uintptr) { refused = sys.SetCoalescing(fd, true) }); err != nil || refused != nil {
		return true, refused != nil
	}
	if _, _, err := out.WriteMsgUDP([]byte("abc"), sys.AppendSegmentControl(nil, 2, nil), nil); err != nil {
		return false, false
	}
	in.SetReadDeadline(time.Now().Add(runTestWait))
	return readsAsSent(raw, out.LocalAddr().(*net.UDPAddr))
}

// readsAsSent reads ab and c that came from an address, passing over what
// others send.
func readsAsSent(raw syscall.RawConn, from *net.UDPAddr) (failed, known bool) {
	for want := "abc"; want != ""; {
		b := inBatches.Get().(*inBatch)
		var errno syscall.Errno
		err := raw.Read(func(fd uintptr) bool {
			b.ready(1, nil)
			_, errno = b.in.RecvOne(fd, 0)
			return errno != sys.EWOULDBLOCK
		})
		if err != nil || errno != 0 {
			b.free()
			return false, false
		}
		b.take(1, nil)
		m := b.first()
		if m.from.Port() == uint16(from.Port) {
			for ; m.left > 0; m.drop() {
				if d := string(m.first()); len(d) > 2 || d != want[:len(d)] {
					b.free()
					return true, true
				}
				want = want[len(m.first()):]
			}
		}
		b.free()
	}
	return false, true
}
