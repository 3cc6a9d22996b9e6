// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package sys

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/windows"
)

// SendmsgAltersControl reports whether Sendmsg may change what is sent with
// control messages.
const SendmsgAltersControl = false

// Sendmsg sends one datagram with package net, which has no flags here and
// takes one buffer. It first asks whether there is room, since net would wait
// for it under the descriptor's lock. A nil to is the connected peer.
func Sendmsg(c *net.UDPConn, raw syscall.RawConn, _ bool, vectors [][]byte, control []byte, to *net.UDPAddr, flags int) (n int, err error) {
	if flags != 0 {
		return 0, os.NewSyscallError("sendmsg", errors.ErrUnsupported)
	}
	var ok bool
	controlErr := raw.Control(func(fd uintptr) { ok, err = Writable(fd) })
	switch {
	case controlErr != nil:
		return 0, controlErr
	case err != nil:
		return 0, err
	case !ok:
		return 0, EWOULDBLOCK
	}
	p := vectors[0]
	if len(vectors) > 1 {
		p = slices.Concat(vectors...)
	}
	var addr netip.AddrPort
	if to != nil {
		addr = to.AddrPort()
	}
	if _, _, err := c.WriteMsgUDPAddrPort(p, control, addr); err != nil {
		if errors.Is(err, windows.WSAEMSGSIZE) { // which is no syscall.EMSGSIZE
			err = os.NewSyscallError("sendmsg", syscall.EMSGSIZE)
		}
		return 0, err
	}
	return len(p), nil // net returns 0: WSASendMsg is not asked (internal/poll, FD.WriteMsg)
}
