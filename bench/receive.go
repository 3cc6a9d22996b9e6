// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package main

import (
	"net"
	"net/netip"

	"github.com/batchconn/batchconn/bench/internal/reading"
	"github.com/batchconn/batchconn/internal/harness"
)

// receiveBuffer is what each receiver asks of the system.
const receiveBuffer = 16 << 20

// A receiver is a socket that wakes no reader.
type receiver struct{ *harness.Inlet }

func newReceiver(m *reading.Medium) (r receiver, err error) {
	err = m.Do(func() error {
		u, err := harness.ListenUDP(net.UDPAddrFromAddrPort(netip.AddrPortFrom(m.To, 0)))
		if err == nil {
			r.Inlet, err = harness.NewInlet(u)
		}
		return err
	})
	return r, err
}

// setBuffer gives it a receive buffer, as large as the system allows, and
// returns what there is.
func (r receiver) setBuffer(bytes int) int { return reading.SetBuffer(r.Inlet, bytes) }

func openReceivers(n int, m *reading.Medium) (rs []receiver, err error) {
	for range n {
		r, err := newReceiver(m)
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

// newMailbag is for datagrams of a size, as many as a megabyte holds, but no
// more than 64.
func newMailbag(size int) *harness.Mailbag {
	return harness.NewMailbag(min(64, 1<<20/size), size)
}
