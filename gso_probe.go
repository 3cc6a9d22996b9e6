// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"net"
	"time"

	"github.com/batchconn/batchconn/internal/sys"
)

// segmentTest is whether this kernel segments at all: some lookalikes accept
// the option and send one huge datagram.
var segmentTest = &loopbackTest{try: func(ip net.IP) (failed, known bool) {
	return segmentsOn(ip, sys.AppendSegmentControl(nil, 2, nil))
}}

// Why segmentation is off because of the test.
const (
	reasonNotSegmented = "the kernel ignores UDP_SEGMENT: a test on loopback was not segmented"
	reasonUntested     = "a test on loopback, whether the kernel segments, is under way"
)

// untestedReason is why segmentation is off by the test, or empty. A kernel
// that does not answer is trusted. It does not wait.
func untestedReason() string {
	switch segmentTest.result(false) {
	case loopbackFailed:
		return reasonNotSegmented
	case loopbackUntested:
		return reasonUntested
	}
	return ""
}

// segmentsOn sends three bytes with control and looks whether they arrive as
// two and one.
func segmentsOn(ip net.IP, control []byte) (failed, known bool) {
	in, out, err := dialSelf(ip)
	if err != nil {
		return false, false
	}
	defer in.Close()
	defer out.Close()
	if _, _, err := out.WriteMsgUDP([]byte("abc"), control, nil); err != nil {
		return false, false
	}
	in.SetReadDeadline(time.Now().Add(loopbackWait))
	for _, want := range []string{"ab", "c"} {
		got, err := readFrom(in, out.LocalAddr())
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
func readFrom(in *net.UDPConn, addr net.Addr) (string, error) {
	var buf [4]byte
	for {
		n, from, err := in.ReadFromUDPAddrPort(buf[:])
		if err != nil || from == addr.(*net.UDPAddr).AddrPort() {
			return string(buf[:n]), err
		}
	}
}
