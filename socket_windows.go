// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"errors"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"
)

var errWouldBlock error = syscall.EAGAIN

// consumedErrors are reported once.
var consumedErrors = []error{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH}

func socketDomain(raw syscall.RawConn) (isIPv6 bool, err error) {
	controlErr := raw.Control(func(fd uintptr) {
		var name windows.Sockaddr
		name, err = windows.Getsockname(windows.Handle(fd))
		switch name.(type) {
		case *windows.SockaddrInet4:
		case *windows.SockaddrInet6:
			isIPv6 = true
		default:
			if err == nil {
				err = errors.New("not an IPv4 or IPv6 socket")
			}
		}
	})
	return isIPv6, errors.Join(controlErr, err)
}

var procWSAPoll = windows.NewLazySystemDLL("ws2_32.dll").NewProc("WSAPoll")

// pollWriteNormal is POLLWRNORM of winsock2.h.
const pollWriteNormal = 0x0010

// wsaPollFd is WSAPOLLFD of winsock2.h.
type wsaPollFd struct {
	fd              uintptr
	events, revents int16
}

// writable reports whether WSAPoll says POLLWRNORM.
func writable(raw syscall.RawConn) (ok bool, err error) {
	controlErr := raw.Control(func(fd uintptr) {
		p := wsaPollFd{fd: fd, events: pollWriteNormal}
		n, _, errno := procWSAPoll.Call(uintptr(unsafe.Pointer(&p)), 1, 0)
		if int32(n) < 0 {
			err = os.NewSyscallError("WSAPoll", errno)
		}
		ok = p.revents&pollWriteNormal != 0
	})
	if controlErr != nil {
		return false, controlErr
	}
	return ok, err
}
