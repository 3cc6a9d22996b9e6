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
var selfTest = loopbackTest{try: func(ip net.IP) (failed, known bool) {
	return segmentsOn(ip, sys.AppendSegmentControl(nil, 2, nil))
}}

// A loopbackTest sends three bytes in segments of two and looks at what
// arrives. Only an answer is remembered: where loopback is down or filtered,
// the next New tests again.
type loopbackTest struct {
	try    func(ip net.IP) (failed, known bool)
	mu     sync.Mutex
	tried  bool
	known  bool
	failed bool
}

func (t *loopbackTest) passed(again bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.known && (again || !t.tried) {
		t.tried = true
		for _, ip := range []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback} {
			if t.failed, t.known = t.try(ip); t.known {
				break
			}
		}
	}
	return !t.failed
}

// selfTestWait bounds how long a New can take for it.
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
