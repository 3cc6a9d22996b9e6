// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// SocketMemory says how many bytes of its receive buffer a socket uses, and how
// many datagrams, or runs of them, it has dropped because that was full
// (SO_MEMINFO, linux/sock_diag.h).
func SocketMemory(fd uintptr) (queued, drops uint32) {
	const (
		rmemAlloc = 0 // SK_MEMINFO_RMEM_ALLOC
		dropped   = 8 // SK_MEMINFO_DROPS
	)
	var info [16]uint32
	size := uint32(unsafe.Sizeof(info))
	unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	return info[rmemAlloc], info[dropped]
}
