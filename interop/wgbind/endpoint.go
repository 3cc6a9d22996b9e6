// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package wgbind

import (
	"net/netip"
	"sync/atomic"

	"github.com/batchconn/batchconn"
)

// An endpoint is where a peer is, and which address of ours it speaks to.
type endpoint struct {
	dst netip.AddrPort
	src atomic.Pointer[source] // never nil
}

// A source is the address to send from, if any. It names no interface: routes
// change.
type source struct {
	ip      netip.Addr
	control []byte
}

func newEndpoint(dst netip.AddrPort, src netip.Addr) *endpoint {
	e := &endpoint{dst: netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())}
	m := batchconn.ControlMessage{Flags: batchconn.ControlLocal, Local: src}
	e.src.Store(&source{src, m.Append(nil, e.dst.Addr())})
	return e
}

// is reports whether a datagram came from e to the address that e sends from.
func (e *endpoint) is(from netip.AddrPort, to netip.Addr) bool {
	return e.dst.Port() == from.Port() && e.dst.Addr() == from.Addr().Unmap() && e.SrcIP() == to
}

func (e *endpoint) ClearSrc()           { e.src.Store(new(source)) }
func (e *endpoint) SrcIP() netip.Addr   { return e.src.Load().ip }
func (e *endpoint) SrcToString() string { return e.SrcIP().String() }
func (e *endpoint) DstIP() netip.Addr   { return e.dst.Addr() }
func (e *endpoint) DstToString() string { return e.dst.String() }
func (e *endpoint) DstToBytes() []byte  { b, _ := e.dst.MarshalBinary(); return b }
