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
func Writable(fd uintptr) (bool, error) { return poll(fd, unix.POLLOUT) }

func poll(fd uintptr, events int16) (bool, error) {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: events}}
	for {
		_, err := unix.Poll(fds[:], 0)
		switch err {
		case unix.EINTR:
			continue
		case unix.EINVAL: // RLIMIT_NOFILE is below 1: let the caller try
			return true, nil
		}
		return fds[0].Revents&events != 0, os.NewSyscallError("poll", err)
	}
}
