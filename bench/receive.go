// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package main

import (
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/batchconn/batchconn/internal/harness"
)

// receiveBuffer is what each receiver asks of the system, which gives as much as
// it allows (net.core.rmem_max).
const receiveBuffer = 16 << 20

// A receiver is a socket for which nobody is woken.
type receiver struct{ *harness.Inlet }

func newReceiver() (r receiver, err error) {
	u, err := harness.ListenUDP(&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return r, err
	}
	r.Inlet, err = harness.NewInlet(u)
	return r, err
}

// setBuffer asks for a receive buffer and returns what there is.
func (r receiver) setBuffer(bytes int) int {
	unix.SetsockoptInt(r.FD(), unix.SOL_SOCKET, unix.SO_RCVBUF, bytes)
	return r.buffer()
}

// forceBuffer does that beyond the system's limit, if it may.
func (r receiver) forceBuffer(bytes int) int {
	if unix.SetsockoptInt(r.FD(), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes) != nil {
		return r.setBuffer(bytes)
	}
	return r.buffer()
}

func (r receiver) buffer() int {
	n, _ := unix.GetsockoptInt(r.FD(), unix.SOL_SOCKET, unix.SO_RCVBUF)
	return n
}

func openReceivers(n int) (rs []receiver, err error) {
	for range n {
		r, err := newReceiver()
		if err != nil {
			closeReceivers(rs)
			return nil, err
		}
		rs = append(rs, r)
	}
	return rs, nil
}

func closeReceivers(rs []receiver) {
	for _, r := range rs {
		r.Close()
	}
}

func addresses(rs []receiver) []netip.AddrPort {
	to := make([]netip.AddrPort, len(rs))
	for i, r := range rs {
		to[i] = r.Addr()
	}
	return to
}

// newMailbag is for datagrams of a size, as many as a megabyte holds, but no more
// than 64.
func newMailbag(size int) *harness.Mailbag {
	return harness.NewMailbag(min(64, 1<<20/size), size)
}
