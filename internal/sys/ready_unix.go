// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build unix

package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// Writable reports whether poll(2) says POLLOUT, and does not wait. POLLERR,
// which an unread error queue raises, says nothing about room.
func Writable(fd uintptr) (bool, error) {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	known, err := poll(fds[:])
	return !known || fds[0].Revents&unix.POLLOUT != 0, err
}

// poll asks once. Where RLIMIT_NOFILE is below 1, poll(2) takes no descriptor,
// and nothing is known: the caller has to try.
func poll(fds []unix.PollFd) (known bool, err error) {
	for {
		switch _, err := unix.Poll(fds, 0); err {
		case unix.EINTR:
		case unix.EINVAL:
			return false, nil
		default:
			return true, os.NewSyscallError("poll", err)
		}
	}
}
