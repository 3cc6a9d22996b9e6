// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build unix

package sys

import (
	"net/netip"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Sendto puts one datagram to the kernel with sendto(2), to the connected peer
// if to is the zero AddrPort, else to an address without a zone that the
// socket's family can reach. It never waits. The kernel's error is a bare
// errno; any other means that the kernel was not asked. It does not allocate.
func Sendto(raw syscall.RawConn, isIPv6 bool, p []byte, to netip.AddrPort, flags int) error {
	c := sendtoCalls.Get().(*sendtoCall)
	c.p, c.flags = p, flags|DontWait
	if to.IsValid() {
		c.to.set(isIPv6, to)
	} else {
		c.to = sockaddr{}
	}
	err := raw.Control(c.call)
	if err == nil {
		err = c.err
	}
	c.p, c.err = nil, nil
	sendtoCalls.Put(c)
	return err
}

// A sendtoCall holds the arguments of sendto; pooled, so that no call makes a
// closure.
type sendtoCall struct {
	p     []byte
	flags int
	to    sockaddr
	err   error
	call  func(fd uintptr)
}

var sendtoCalls = sync.Pool{New: func() any {
	c := new(sendtoCall)
	c.call = func(fd uintptr) { c.err = sendto(fd, c.p, c.flags, &c.to) }
	return c
}}

// IsSendtoRefused reports whether a seccomp filter refuses sendto(2) whatever
// is sent with it. The call names no descriptor: to that only the kernel itself
// answers EBADF.
func IsSendtoRefused() bool {
	return sendto(^uintptr(0), nil, 0, new(sockaddr)) != unix.EBADF
}
