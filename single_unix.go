// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build unix

package batchconn

import (
	"net"
	"net/netip"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A sendtoer sends single datagrams with sendto(2).
type sendtoer struct {
	raw       syscall.RawConn
	isIPv6    bool
	connected bool
}

func newSendtoer(c *net.UDPConn, raw syscall.RawConn, isIPv6 bool) sendtoer {
	return sendtoer{raw, isIPv6, c.RemoteAddr() != nil}
}

func (o *sendtoer) sendto(p []byte, to netip.AddrPort, flags int) error {
	s := singles.Get().(*single)
	s.p, s.flags = p, flags|dontWait
	switch {
	case o.connected:
		s.to = nil
	case o.isIPv6:
		s.v6.Addr, s.v6.Port = to.Addr().As16(), int(to.Port())
		s.to = &s.v6
	default:
		s.v4.Addr, s.v4.Port = to.Addr().As4(), int(to.Port())
		s.to = &s.v4
	}
	err := o.raw.Control(s.call)
	if err == nil {
		err = s.err
	}
	s.p, s.err = nil, nil
	singles.Put(s)
	return err
}

// A single holds the arguments of sendto; pooled, so that no call makes a
// closure.
type single struct {
	p     []byte
	flags int
	to    unix.Sockaddr // &v4, &v6 or nil
	v4    unix.SockaddrInet4
	v6    unix.SockaddrInet6
	err   error
	call  func(fd uintptr)
}

var singles = sync.Pool{New: func() any {
	s := new(single)
	s.call = func(fd uintptr) { s.err = unix.Sendto(int(fd), s.p, s.flags, s.to) }
	return s
}}
