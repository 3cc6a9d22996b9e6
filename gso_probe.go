// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"net"
	"sync"
	"time"

	"github.com/batchconn/batchconn/internal/sys"
)

// selfTest is whether this kernel segments at all: some lookalikes accept the
// option and send one huge datagram.
var selfTest = &loopbackTest{try: func(ip net.IP) (failed, known bool) {
	return segmentsOn(ip, sys.AppendSegmentControl(nil, 2, nil))
}}

// Why segmentation is off because of the self-test.
const (
	testFailed   = "the kernel ignores UDP_SEGMENT: a test on loopback was not segmented"
	testUnderWay = "a test on loopback, whether the kernel segments, is under way"
)

// A loopbackTest sends three bytes in segments of two and looks at what
// arrives. An answer is remembered for good. Where loopback is down or filtered
// there is none: then the kernel is trusted, and a New tests again, but only
// after selfTestSilence.
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

const selfTestSilence = time.Second

// disabledReason is why segmentation is off by the test, or empty. With wait it
// waits for a test that is under way or due. Without it, what is not known yet
// is off, and the test is made meanwhile: that is of a Conn whose socket could
// not segment in its New.
func (t *loopbackTest) disabledReason(wait bool) string {
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
		return testFailed
	case !t.answered && t.silentAt.IsZero():
		return testUnderWay
	}
	return ""
}

// dueLocked reports whether to test, in New or by a send.
func (t *loopbackTest) dueLocked(inNew bool) bool {
	if t.answered {
		return false
	}
	return t.silentAt.IsZero() || inNew && t.now().Sub(t.silentAt) >= selfTestSilence
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

// selfTestWait is how long each family has to answer.
const selfTestWait = 25 * time.Millisecond

// segmentsOn sends three bytes with control and looks whether they arrive as
// two and one.
func segmentsOn(ip net.IP, control []byte) (failed, known bool) {
	r, err := net.ListenUDP("udp", &net.UDPAddr{IP: ip})
	if err != nil {
		return false, false
	}
	defer r.Close()
	s, err := net.DialUDP("udp", nil, r.LocalAddr().(*net.UDPAddr))
	if err != nil {
		return false, false
	}
	defer s.Close()
	if _, _, err := s.WriteMsgUDP([]byte("abc"), control, nil); err != nil {
		return false, false
	}
	r.SetReadDeadline(time.Now().Add(selfTestWait))
	for _, want := range []string{"ab", "c"} {
		got, err := readFrom(r, s.LocalAddr())
		if err != nil {
			return false, false
		}
		if got != want {
			return true, true
		}
	}
	return false, true
}

// readFrom reads a few bytes that came from an address, and passes over what
// others send.
func readFrom(r *net.UDPConn, addr net.Addr) (string, error) {
	var buf [4]byte
	for {
		n, from, err := r.ReadFromUDPAddrPort(buf[:])
		if err != nil || from == addr.(*net.UDPAddr).AddrPort() {
			return string(buf[:n]), err
		}
	}
}
