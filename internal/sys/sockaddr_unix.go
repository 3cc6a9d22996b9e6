// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build unix && (!linux || android || batchconn_portable)

package sys

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// A sockaddr is a destination. The zero value is none.
type sockaddr struct {
	v4 unix.SockaddrInet4
	v6 unix.SockaddrInet6
	to unix.Sockaddr // &v4, &v6 or nil
}

func (a *sockaddr) set(isIPv6 bool, to netip.AddrPort) {
	if isIPv6 {
		a.v6.Addr, a.v6.Port = to.Addr().As16(), int(to.Port())
		a.to = &a.v6
		return
	}
	a.v4.Addr, a.v4.Port = to.Addr().As4(), int(to.Port())
	a.to = &a.v4
}

func sendto(fd uintptr, p []byte, flags int, to *sockaddr) error {
	return unix.Sendto(int(fd), p, flags, to.to)
}
