// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package sys

import (
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

var procWSAPoll = windows.NewLazySystemDLL("ws2_32.dll").NewProc("WSAPoll")

// pollWriteNormal is POLLWRNORM of winsock2.h.
const pollWriteNormal = 0x0010

// wsaPollFd is WSAPOLLFD of winsock2.h.
type wsaPollFd struct {
	fd              uintptr
	events, revents int16
}

// Writable reports whether WSAPoll says POLLWRNORM, and does not wait.
func Writable(fd uintptr) (bool, error) { return poll(fd, pollWriteNormal) }

func poll(fd uintptr, events int16) (bool, error) {
	p := wsaPollFd{fd: fd, events: events}
	n, _, errno := procWSAPoll.Call(uintptr(unsafe.Pointer(&p)), 1, 0)
	if int32(n) < 0 {
		return false, os.NewSyscallError("WSAPoll", errno)
	}
	return p.revents&events != 0, nil
}
