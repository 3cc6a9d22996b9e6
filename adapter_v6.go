// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"net"
	"net/netip"
	"sync/atomic"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/batchconn/batchconn/internal/sys"
)

// An adapterV6 serves IPv6 and dual-stack sockets. x/net puts IPv4
// destinations to them as AF_INET, which Linux takes (net/ipv6/udp.c,
// udpv6_sendmsg); on an IPV6_V6ONLY socket it answers ENETUNREACH.
type adapterV6 struct {
	s    *sender
	xnet atomic.Pointer[ipv6.PacketConn] // as adapterV4 has it
}

func (a *adapterV6) writeBatch(ms []ipv4.Message, flags int) (int, error) {
	c := a.xnet.Load()
	if c == nil {
		c = ipv6.NewPacketConn(a.s.promptConn())
		a.xnet.Store(c)
	}
	n, err := c.WriteBatch(ms, flags|sys.DontWait)
	return max(n, 0), err // x/net says -1 with an error
}

func (a *adapterV6) sendto(p []byte, to netip.AddrPort, flags int) error {
	return sys.Sendto(a.s.queue.ends.raw, true, p, to, flags)
}

func (a *adapterV6) accepts(to netip.Addr) error {
	if to.IsValid() {
		return nil
	}
	return &net.AddrError{Err: "invalid address", Addr: to.String()}
}

// maxPayload is that of IPv6, whose length does not count its header, or that
// of IPv4.
func (a *adapterV6) maxPayload(to netip.Addr) int {
	if to.Is4() || to.Is4In6() {
		return 65507
	}
	return 65527
}
