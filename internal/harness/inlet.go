// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package harness

import (
	"net"
	"net/netip"
)

// receiveBuffer is what a receiver asks of the system, which gives as much as
// it allows (Linux: net.core.rmem_max).
const receiveBuffer = 16 << 20

// ListenUDP opens a socket with a large receive buffer.
func ListenUDP(at *net.UDPAddr) (*net.UDPConn, error) {
	u, err := net.ListenUDP("udp", at)
	if err != nil {
		return nil, err
	}
	for size := receiveBuffer; size >= 64<<10 && u.SetReadBuffer(size) != nil; size /= 2 {
	}
	return u, nil
}

// An Inlet is a receiving socket for which nobody is woken: no poller knows it,
// and its reader looks from time to time. The kernel wakes a sleeping receiver
// in the sender's time. On loopback that alone tripled the processor time of a
// WriteTo (Linux 6.18). Senders to a network never pay it, and ways that let
// receivers sleep less would look better than they are.
type Inlet struct {
	addr   netip.AddrPort
	socket inletSocket
}

// NewInlet makes an inlet of u, which is its own from then on.
func NewInlet(u *net.UDPConn) (*Inlet, error) {
	in := &Inlet{addr: u.LocalAddr().(*net.UDPAddr).AddrPort()}
	var err error
	if in.socket, err = newInletSocket(u); err != nil {
		u.Close()
		return nil, err
	}
	return in, nil
}

// Addr is where it receives.
func (in *Inlet) Addr() netip.AddrPort { return in.addr }

// Read reads what is there into m and returns how many datagrams that were, or
// 0 if there are none.
func (in *Inlet) Read(m *Mailbag) (int, error) { return in.socket.read(m) }

// Close closes the socket. No read may be under way.
func (in *Inlet) Close() error { return in.socket.close() }
