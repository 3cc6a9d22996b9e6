// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build unix

package batchconn

import (
	"net"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// writeOne sends one datagram with sendmsg(2), without the descriptor's write
// lock. Sockets of package net are non-blocking, so it does not wait even where
// dontWait is 0.
func (a *adapterPortable) writeOne(m *ipv4.Message, flags int) (n int, err error) {
	if a.needsXNet(m) {
		one := [1]ipv4.Message{*m}
		_, err := a.adapter.writeBatch(one[:], flags)
		return one[0].N, err
	}
	to := a.sockaddr(m)
	controlErr := a.raw.Control(func(fd uintptr) {
		for {
			n, err = unix.SendmsgBuffers(int(fd), m.Buffers, m.OOB, to, flags|dontWait)
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

// needsXNet reports whether x/net sends m and x/sys does not: with control
// messages, x/sys adds a byte to an empty datagram on the BSDs and macOS, and on
// Solaris drops them. x/net in turn knows no IPv4 on an IPv6 socket there.
func (a *adapterPortable) needsXNet(m *ipv4.Message) bool {
	if runtime.GOOS == "linux" || len(m.OOB) == 0 {
		return false
	}
	udp, ok := m.Addr.(*net.UDPAddr)
	return !ok || a.isIPv6 == (udp.IP.To4() == nil)
}

// sockaddr is m's destination in the socket's own family: BSD and macOS refuse
// AF_INET on an IPv6 socket.
func (a *adapterPortable) sockaddr(m *ipv4.Message) unix.Sockaddr {
	udp, ok := m.Addr.(*net.UDPAddr)
	if !ok {
		return nil
	}
	if a.isIPv6 {
		return &unix.SockaddrInet6{Port: udp.Port, Addr: [16]byte(udp.IP.To16()), ZoneId: zoneID(udp.Zone)}
	}
	return &unix.SockaddrInet4{Port: udp.Port, Addr: [4]byte(udp.IP.To4())}
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
