// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package harness

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// HaveDrops reports whether Drops is known.
const HaveDrops = true

// Drops is how many datagrams found no room in the inlet's buffer, modulo 1<<32
// (SO_MEMINFO of socket(7), since Linux 4.12).
func (in *Inlet) Drops() (uint32, error) {
	const drops, fields = 8, 9 // of enum SK_MEMINFO in linux/sock_diag.h
	var info [fields]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(in.FD()), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return 0, os.NewSyscallError("getsockopt", errno)
	}
	return info[drops], nil
}
