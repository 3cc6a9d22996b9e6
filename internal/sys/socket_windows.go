// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package sys

import (
	"errors"
	"syscall"

	"golang.org/x/sys/windows"
)

// EWOULDBLOCK is what the kernel answers instead of waiting.
const EWOULDBLOCK = syscall.EAGAIN

// PendingErrors are what ICMP makes a send or a read return once: an
// unreachable port (WSAECONNRESET; WSAECONNREFUSED under Wine), a TTL that ran
// out (WSAENETRESET), an unreachable host or net. See WSASendMsg and WSASendTo.
// Package net turns the first two off (SIO_UDP_CONNRESET, SIO_UDP_NETRESET),
// but a socket's owner may turn them on. Syscall's ECONNREFUSED and so on are
// numbers of Go's own here, which Windows never returns.
var PendingErrors = []syscall.Errno{
	windows.WSAECONNRESET, windows.WSAENETRESET, windows.WSAECONNREFUSED,
	windows.WSAEHOSTUNREACH, windows.WSAENETUNREACH,
}

// ErrnoUnreachablePort is what an unreachable port leaves pending.
const ErrnoUnreachablePort = windows.WSAECONNRESET

// IsIPv6 reports whether a socket is of IPv6, dual-stack ones included.
func IsIPv6(raw syscall.RawConn) (isIPv6 bool, err error) {
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
