// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"net"
	"net/netip"

	"golang.org/x/net/ipv4"

	"github.com/batchconn/batchconn/internal/sys"
)

// An adapterPortable sends one datagram a system call: for systems where x/net
// has no batch call, and kernels and seccomp filters that refuse it.
type adapterPortable struct{ s *sender }

func (a adapterPortable) sendto(p []byte, to netip.AddrPort, flags int) error {
	return a.s.to.family.sendto(p, to, flags)
}

func (a adapterPortable) accepts(to netip.Addr) error  { return a.s.to.family.accepts(to) }
func (a adapterPortable) maxPayload(to netip.Addr) int { return a.s.to.family.maxPayload(to) }

// writeBatch sends the first of ms: what can end a call is looked at before
// each system call.
func (a adapterPortable) writeBatch(ms []ipv4.Message, flags int) (n int, err error) {
	m := &ms[0]
	if m.N, err = a.writeOne(m, flags); err != nil {
		return 0, err
	}
	return 1, nil
}

func (a adapterPortable) writeOne(m *ipv4.Message, flags int) (n int, err error) {
	if a.needsXNet(m) {
		one := [1]ipv4.Message{*m}
		_, err := a.s.to.family.writeBatch(one[:], flags)
		return one[0].N, err
	}
	to, _ := m.Addr.(*net.UDPAddr)
	return sys.Sendmsg(a.s.name.conn, a.s.queue.ends.raw, a.s.isIPv6, m.Buffers, m.OOB, to, flags)
}

// needsXNet reports whether x/net sends m and x/sys does not. x/net in turn
// knows no IPv4 on an IPv6 socket there.
func (a adapterPortable) needsXNet(m *ipv4.Message) bool {
	if !sys.SendmsgAltersControl || len(m.OOB) == 0 {
		return false
	}
	udp, ok := m.Addr.(*net.UDPAddr)
	return !ok || a.s.isIPv6 == (udp.IP.To4() == nil)
}
