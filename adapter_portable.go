// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"net"

	"golang.org/x/net/ipv4"

	"github.com/batchconn/batchconn/internal/sys"
)

// writePortably is an adapter's writeBatch with one system call for each
// datagram: for systems where x/net has no batch call, and kernels and seccomp
// filters that refuse it. It sends the first of ms: what can end a call is
// looked at before each system call.
func (s *sender) writePortably(ms []ipv4.Message, flags int) (n int, err error) {
	m := &ms[0]
	if m.N, err = s.writeOne(m, flags); err != nil {
		return 0, err
	}
	return 1, nil
}

func (s *sender) writeOne(m *ipv4.Message, flags int) (n int, err error) {
	if s.needsXNet(m) {
		one := [1]ipv4.Message{*m}
		_, err := s.kernel.writeBatch(one[:], flags)
		return one[0].N, err
	}
	to, _ := m.Addr.(*net.UDPAddr)
	return sys.Sendmsg(s.name.conn, s.queue.ends.raw, s.isIPv6, m.Buffers, m.OOB, to, flags)
}

// needsXNet reports whether x/net sends m and x/sys does not. x/net in turn
// knows no IPv4 on an IPv6 socket there.
func (s *sender) needsXNet(m *ipv4.Message) bool {
	if !sys.SendmsgAltersControl || len(m.OOB) == 0 {
		return false
	}
	udp, ok := m.Addr.(*net.UDPAddr)
	return !ok || s.isIPv6 == (udp.IP.To4() == nil)
}
