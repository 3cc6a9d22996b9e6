// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build unix

package sys

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// EWOULDBLOCK is what the kernel answers instead of waiting.
const EWOULDBLOCK = syscall.EAGAIN

// PendingErrors are what ICMP can leave pending on a connected socket, to be
// reported once (icmp_err_convert in net/ipv4/icmp.c, icmpv6_err_convert in
// net/ipv6/icmp.c). EMSGSIZE, which can be too, is not among them: mostly it is
// of one message, and stands.
var PendingErrors = []syscall.Errno{
	syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH,
	syscall.ENOPROTOOPT, syscall.EHOSTDOWN, syscall.EPROTO, syscall.EACCES,
}

// ErrnoUnreachablePort is what an unreachable port leaves pending.
const ErrnoUnreachablePort = syscall.ECONNREFUSED

// IsIPv6 reports whether a datagram socket is of IPv6, dual-stack ones
// included. The kernel is asked, since the look of LocalAddr does not tell an
// IPv4 socket from a dual-stack one.
func IsIPv6(raw syscall.RawConn) (isIPv6 bool, err error) {
	controlErr := raw.Control(func(fd uintptr) { isIPv6, err = domainOf(int(fd)) })
	return isIPv6, errors.Join(controlErr, err)
}

func domainOf(fd int) (isIPv6 bool, err error) {
	sotype, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return false, os.NewSyscallError("getsockopt", err)
	}
	if sotype != unix.SOCK_DGRAM {
		return false, errors.New("not a datagram socket")
	}
	name, err := unix.Getsockname(fd)
	switch name.(type) {
	case *unix.SockaddrInet4:
		return false, nil
	case *unix.SockaddrInet6:
		return true, nil
	}
	if err != nil {
		return false, os.NewSyscallError("getsockname", err)
	}
	return false, errors.New("not an IPv4 or IPv6 socket")
}
