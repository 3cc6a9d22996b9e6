// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build unix

package sys

import "golang.org/x/sys/unix"

// Readable reports what poll(2) says without waiting: POLLIN, and POLLERR,
// which a pending error raises and so does an unread error queue.
func Readable(fd uintptr) (in, failed bool) {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds[:], 0); err == unix.EINTR {
			continue
		}
		return fds[0].Revents&unix.POLLIN != 0, fds[0].Revents&unix.POLLERR != 0
	}
}

// SocketError is the socket's pending error, which asking for it clears
// (SO_ERROR of POSIX); 0 if there is none.
func SocketError(fd uintptr) unix.Errno {
	v, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return 0
	}
	return unix.Errno(v)
}
