// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// SocketMemory says how many bytes of its receive buffer a socket uses, and how
// many datagrams, or runs of them, it has dropped because that was full.
func SocketMemory(fd uintptr) (queued, drops uint32) {
	const (
		rmemAlloc = 0 // SK_MEMINFO_RMEM_ALLOC
		dropped   = 8 // SK_MEMINFO_DROPS
	)
	info := memInfo(fd)
	return info[rmemAlloc], info[dropped]
}

// SendBufferFull reports whether the kernel would answer EAGAIN to a datagram
// whatever its length: it takes none while the buffer is used up
// (sock_alloc_send_pskb, net/core/sock.c), and calls the socket writable only
// once half of it is free.
func SendBufferFull(fd uintptr) bool {
	const (
		wmemAlloc = 2 // SK_MEMINFO_WMEM_ALLOC
		sndBuf    = 3 // SK_MEMINFO_SNDBUF
	)
	info := memInfo(fd)
	return info[sndBuf] != 0 && info[wmemAlloc] >= info[sndBuf]
}

// memInfo is SO_MEMINFO (linux/sock_diag.h), or zeros.
func memInfo(fd uintptr) (info [16]uint32) {
	size := uint32(unsafe.Sizeof(info))
	unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	return info
}
