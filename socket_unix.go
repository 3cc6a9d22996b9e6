// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build unix

package batchconn

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

var errWouldBlock error = syscall.EAGAIN

// consumedErrors are what ICMP can leave pending on a connected socket, to be
// reported once (icmp_err_convert in net/ipv4/icmp.c, icmpv6_err_convert in
// net/ipv6/icmp.c). EMSGSIZE, which can be too, is not among them: mostly it is
// of one message, and stands.
var consumedErrors = []error{
	syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH,
	syscall.ENOPROTOOPT, syscall.EHOSTDOWN, syscall.EPROTO, syscall.EACCES,
}

// socketDomain says of which family a socket is. The kernel is asked, since the
// look of LocalAddr does not tell an IPv4 socket from a dual-stack one.
func socketDomain(raw syscall.RawConn) (isIPv6 bool, err error) {
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

// writable reports whether poll(2) says POLLOUT.
func writable(raw syscall.RawConn) (ok bool, err error) {
	controlErr := raw.Control(func(fd uintptr) { ok, err = hasRoom(fd) })
	if controlErr != nil {
		return false, controlErr
	}
	return ok, err
}

// hasRoom looks at POLLOUT alone: POLLERR, which an unread error queue raises,
// says nothing about room.
func hasRoom(fd uintptr) (bool, error) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	for {
		_, err := unix.Poll(fds, 0)
		if err == unix.EINTR {
			continue
		}
		return fds[0].Revents&unix.POLLOUT != 0, os.NewSyscallError("poll", err)
	}
}
