// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/net/ipv4"

	"github.com/batchconn/batchconn/internal/sys"
)

// An adapterPortable sends one datagram a system call: for systems where x/net
// has no batch call, and kernels and seccomp filters that refuse it.
type adapterPortable struct {
	family adapter // of the socket
	conn   *net.UDPConn
	raw    syscall.RawConn
	isIPv6 bool
}

func newAdapterPortable(family adapter, c *net.UDPConn, raw syscall.RawConn, isIPv6 bool) adapter {
	return &adapterPortable{family, c, raw, isIPv6}
}

func (a *adapterPortable) sendto(p []byte, to netip.AddrPort, flags int) error {
	return a.family.sendto(p, to, flags)
}

func (a *adapterPortable) accepts(to netip.Addr) error  { return a.family.accepts(to) }
func (a *adapterPortable) maxPayload(to netip.Addr) int { return a.family.maxPayload(to) }

// writeBatch sends the first of ms: what can end a call is looked at before
// each system call.
func (a *adapterPortable) writeBatch(ms []ipv4.Message, flags int) (n int, err error) {
	m := &ms[0]
	if m.N, err = a.writeOne(m, flags); err != nil {
		return 0, err
	}
	return 1, nil
}

func (a *adapterPortable) writeOne(m *ipv4.Message, flags int) (n int, err error) {
	if a.needsXNet(m) {
		one := [1]ipv4.Message{*m}
		_, err := a.family.writeBatch(one[:], flags)
		return one[0].N, err
	}
	to, _ := m.Addr.(*net.UDPAddr)
	return sys.Sendmsg(a.conn, a.raw, a.isIPv6, m.Buffers, m.OOB, to, flags)
}

// needsXNet reports whether x/net sends m and x/sys does not. x/net in turn
// knows no IPv4 on an IPv6 socket there.
func (a *adapterPortable) needsXNet(m *ipv4.Message) bool {
	if !sys.SendmsgAltersControl || len(m.OOB) == 0 {
		return false
	}
	udp, ok := m.Addr.(*net.UDPAddr)
	return !ok || a.isIPv6 == (udp.IP.To4() == nil)
}
