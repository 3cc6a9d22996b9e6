// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux && !android && !batchconn_portable

package sys

import "golang.org/x/sys/unix"

// HaveBatchCall reports whether x/net's WriteBatch is sendmmsg(2).
const HaveBatchCall = true

// Flags of sendmsg(2); 0 where the system does not have them.
const (
	MsgZeroCopy = unix.MSG_ZEROCOPY // the payload is the kernel's until it says otherwise
	MsgMore     = unix.MSG_MORE     // the next send goes on with this datagram
)

// IsBatchCallRefused reports whether the kernel, or a seccomp filter, refuses
// sendmmsg(2) whatever is sent with it. The call asks for nothing, of no
// descriptor: to that only the kernel itself answers EBADF.
func IsBatchCallRefused() bool {
	_, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, ^uintptr(0), 0, 0, 0, 0, 0)
	return errno != unix.EBADF
}
