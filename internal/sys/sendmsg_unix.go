// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build unix

package sys

import (
	"errors"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// SendmsgAltersControl reports whether Sendmsg cannot send everything that has
// control messages, so that x/net is asked first.
const SendmsgAltersControl = runtime.GOOS != "linux" && runtime.GOOS != "android"

// altered reports whether x/sys sends something else than it is given: with
// control messages it adds a byte to an empty datagram (sendmsgN in
// syscall_bsd.go, syscall_aix.go), and on Solaris drops them.
func altered(goos string, vectors [][]byte, control []byte) bool {
	if len(control) == 0 {
		return false
	}
	switch goos {
	case "linux", "android":
		return false
	case "solaris", "illumos":
		return true
	}
	return !slices.ContainsFunc(vectors, func(v []byte) bool { return len(v) > 0 })
}

// Sendmsg sends one datagram with sendmsg(2), without the descriptor's write
// lock. Sockets of package net are non-blocking, so it does not wait even where
// DontWait is 0. A nil to is the connected peer. A datagram that would leave as
// another one is errors.ErrUnsupported.
func Sendmsg(_ *net.UDPConn, raw syscall.RawConn, isIPv6 bool, vectors [][]byte, control []byte, to *net.UDPAddr, flags int) (n int, err error) {
	if altered(runtime.GOOS, vectors, control) {
		return 0, os.NewSyscallError("sendmsg", errors.ErrUnsupported)
	}
	sockaddr := sockaddrOf(to, isIPv6)
	controlErr := raw.Control(func(fd uintptr) {
		for {
			n, err = unix.SendmsgBuffers(int(fd), vectors, control, sockaddr, flags|DontWait)
			if err != unix.EINTR {
				return
			}
		}
	})
	if controlErr != nil {
		return 0, controlErr
	}
	return n, os.NewSyscallError("sendmsg", err)
}

// sockaddrOf is a destination in the socket's own family: BSD and macOS reject
// AF_INET on an IPv6 socket.
func sockaddrOf(to *net.UDPAddr, isIPv6 bool) unix.Sockaddr {
	if to == nil {
		return nil
	}
	if isIPv6 {
		return &unix.SockaddrInet6{Port: to.Port, Addr: [16]byte(to.IP.To16()), ZoneId: zoneID(to.Zone)}
	}
	return &unix.SockaddrInet4{Port: to.Port, Addr: [4]byte(to.IP.To4())}
}

// zoneID is the index of an interface given by name or number, 0 if there is
// none, as in package net.
func zoneID(zone string) uint32 {
	if zone == "" {
		return 0
	}
	if ifi, err := net.InterfaceByName(zone); err == nil {
		return uint32(ifi.Index)
	}
	n, _ := strconv.ParseUint(zone, 10, 32)
	return uint32(n)
}
