// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package interop

import (
	"encoding/binary"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A receiver is a UDP socket that the runtime does not poll.
type receiver struct{ fd int }

func newReceiver(t *testing.T, e netEnd) (r receiver, addr netip.AddrPort) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	wait := unix.NsecToTimeval(int64(patience / 2))
	must(e.do(func() (err error) {
		r.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	}))
	t.Cleanup(func() { unix.Close(r.fd) })
	must(unix.Bind(r.fd, &unix.SockaddrInet4{Addr: e.addr.As4()}))
	must(unix.SetsockoptTimeval(r.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait))
	bound, err := unix.Getsockname(r.fd)
	must(err)
	to := bound.(*unix.SockaddrInet4)
	return r, netip.AddrPortFrom(netip.AddrFrom4(to.Addr), uint16(to.Port))
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

// socketDrops reads SK_MEMINFO_DROPS, the last word of SO_MEMINFO
// (linux/sock_diag.h).
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

// A callCounter counts the system calls of the process by the tracepoint that
// each passes: a descriptor for each thread, whose children are counted too.
type callCounter []int

// countCalls counts from now on, or nothing where that is not allowed.
func countCalls() (c callCounter) {
	text, err := os.ReadFile("/sys/kernel/tracing/events/raw_syscalls/sys_enter/id")
	if err != nil {
		return nil
	}
	id, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return nil
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return nil
	}
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Config: id, Bits: unix.PerfBitInherit}
	attr.Size = uint32(unsafe.Sizeof(attr))
	for _, thread := range threads {
		tid, err := strconv.Atoi(thread.Name())
		if err != nil {
			continue
		}
		if fd, err := unix.PerfEventOpen(&attr, tid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC); err == nil {
			c = append(c, fd)
		}
	}
	return c
}

func (c callCounter) stop() (calls int64) {
	var b [8]byte
	for _, fd := range c {
		if n, err := unix.Read(fd, b[:]); err == nil && n == len(b) {
			calls += int64(binary.NativeEndian.Uint64(b[:]))
		}
		unix.Close(fd)
	}
	return calls
}
