// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build unix

package sys

import "golang.org/x/sys/unix"

// Readable reports what poll(2) says without waiting: POLLIN, and POLLERR,
// which a pending error raises and so does an unread error queue. Where
// RLIMIT_NOFILE is below 1, poll(2) takes no descriptor. Then in is what
// select(2) says, which is both.
func Readable(fd uintptr) (in, failed bool) {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	known, _ := poll(fds[:])
	if !known {
		return selectable(fd), false
	}
	return fds[0].Revents&unix.POLLIN != 0, fds[0].Revents&unix.POLLERR != 0
}

// selectable reports whether select(2) finds something to read. What it does
// not take has to be tried.
func selectable(fd uintptr) bool {
	if fd >= unix.FD_SETSIZE {
		return true
	}
	for {
		var set unix.FdSet
		set.Set(int(fd))
		n, err := unix.Select(int(fd)+1, &set, nil, nil, new(unix.Timeval))
		if err != unix.EINTR {
			return n != 0 || err != nil
		}
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
