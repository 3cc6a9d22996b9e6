// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"net"
	"syscall"
	"time"

	"github.com/batchconn/batchconn/internal/sys"
)

// coalesceTest is whether this kernel says what it coalesces.
var coalesceTest = &loopbackTest{try: coalescesOn}

const (
	reasonGlued      = "the kernel does not say what it coalesces: a test on loopback was wrong"
	reasonUnanswered = "a test of UDP_GRO on loopback was not answered"
)

// gluedReason is why nothing must be coalesced, as far as the test knows. It
// waits for the test.
func gluedReason() string {
	switch coalesceTest.result(true) {
	case loopbackPassed:
		return ""
	case loopbackFailed:
		return reasonGlued
	}
	return reasonUnanswered
}

// coalescesOn sends abc in datagrams of two bytes to a socket that coalesces.
func coalescesOn(ip net.IP) (failed, known bool) {
	in, out, err := dialSelf(ip)
	if err != nil {
		return false, false
	}
	defer in.Close()
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
	in.SetReadDeadline(time.Now().Add(loopbackWait))
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
		b.take(0, 1, nil)
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
