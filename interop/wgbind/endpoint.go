// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package wgbind

import (
	"bytes"
	"net/netip"
	"sync/atomic"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// An endpoint is where a peer is, and how it came to us.
type endpoint struct {
	dst netip.AddrPort
	src atomic.Pointer[source] // never nil
}

// A source is the address to send from, if any. It names no interface: routes change.
type source struct {
	ip      netip.Addr
	info    []byte // the control messages that told us
	control []byte // those that tell the kernel
}

func newEndpoint(dst netip.AddrPort, info []byte) *endpoint {
	e, src := &endpoint{dst: netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())}, &source{info: bytes.Clone(info)}
	v4, v6 := ipv4.ControlMessage{}, ipv6.ControlMessage{}
	if e.dst.Addr().Is4() && v4.Parse(info) == nil && v4.Dst != nil {
		src.ip, src.control = netip.AddrFrom4([4]byte(v4.Dst.To4())), (&ipv4.ControlMessage{Src: v4.Dst}).Marshal()
	} else if e.dst.Addr().Is6() && v6.Parse(info) == nil && v6.Dst != nil {
		src.ip, src.control = netip.AddrFrom16([16]byte(v6.Dst.To16())), (&ipv6.ControlMessage{Src: v6.Dst}).Marshal()
	}
	e.src.Store(src)
	return e
}

// is reports whether a datagram came from e in the way that e knows.
func (e *endpoint) is(from netip.AddrPort, info []byte) bool {
	return e.dst.Port() == from.Port() && e.dst.Addr() == from.Addr().Unmap() && bytes.Equal(e.src.Load().info, info)
}

func (e *endpoint) ClearSrc()           { e.src.Store(new(source)) }
func (e *endpoint) SrcIP() netip.Addr   { return e.src.Load().ip }
func (e *endpoint) SrcToString() string { return e.SrcIP().String() }
func (e *endpoint) DstIP() netip.Addr   { return e.dst.Addr() }
func (e *endpoint) DstToString() string { return e.dst.String() }
func (e *endpoint) DstToBytes() []byte  { b, _ := e.dst.MarshalBinary(); return b }
