// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package interop

import (
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A receiver is a UDP socket that the runtime does not poll.
type receiver struct{ fd int }

func newReceiver(t *testing.T) (receiver, netip.AddrPort) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	wait := unix.NsecToTimeval(int64(patience / 2))
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	must(err)
	t.Cleanup(func() { unix.Close(fd) })
	must(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	must(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait))
	bound, err := unix.Getsockname(fd)
	must(err)
	addr := bound.(*unix.SockaddrInet4)
	return receiver{fd}, netip.AddrPortFrom(netip.AddrFrom4(addr.Addr), uint16(addr.Port))
}

func (r receiver) receive(b []byte) (int, error) {
	for {
		n, _, err := unix.Recvfrom(r.fd, b, 0)
		if err != unix.EINTR {
			return n, err
		}
	}
}

func (r receiver) isEmpty() bool {
	_, _, err := unix.Recvfrom(r.fd, make([]byte, 1), unix.MSG_DONTWAIT|unix.MSG_PEEK)
	return err == unix.EAGAIN
}

// socketDrops reads SK_MEMINFO_DROPS, the last word of SO_MEMINFO (linux/sock_diag.h).
func socketDrops(fd int) (uint32, error) {
	var info [9]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0, errno
	}
	return info[8], nil
}

// cpuTime is what the process has used, getrusage(2).
func cpuTime() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
