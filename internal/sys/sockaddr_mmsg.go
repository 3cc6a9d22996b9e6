// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux && !android && !batchconn_portable

package sys

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A sockaddr is a destination as the kernel has it. The zero value is none.
type sockaddr struct {
	raw  unix.RawSockaddrInet6
	size uintptr
}

func (a *sockaddr) set(isIPv6 bool, to netip.AddrPort) {
	port := (*[2]byte)(unsafe.Pointer(&a.raw.Port)) // in the same place for IPv4
	port[0], port[1] = byte(to.Port()>>8), byte(to.Port())
	if isIPv6 {
		a.raw.Family, a.raw.Addr = unix.AF_INET6, to.Addr().As16()
		a.size = unix.SizeofSockaddrInet6
		return
	}
	v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&a.raw))
	v4.Family, v4.Addr = unix.AF_INET, to.Addr().As4()
	a.size = unix.SizeofSockaddrInet4
}

// maxQuick is the length of the longest datagram of which the scheduler is not
// told: see recv_mmsg.go. A longer one may leave as many fragments.
const maxQuick = 2048

func sendto(fd uintptr, p []byte, flags int, to *sockaddr) error {
	var name unsafe.Pointer
	if to.size > 0 {
		name = unsafe.Pointer(&to.raw)
	}
	var errno unix.Errno
	if len(p) <= maxQuick {
		_, _, errno = unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
			uintptr(flags), uintptr(name), to.size)
	} else {
		_, _, errno = unix.Syscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
			uintptr(flags), uintptr(name), to.size)
	}
	if errno != 0 {
		return errno
	}
	return nil
}
