// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"net/netip"
	"time"
)

// Coalescing.
//
// With UDP_GRO one kernel message brings a run of datagrams of one flow and a
// control message that says their size. All have that size except the last,
// which may be shorter. So its length and that size alone say how to cut a run.

// A coalesced is a message of the kernel's that is being cut into its
// datagrams.
type coalesced struct {
	payload []byte // what is left of it
	size    int    // of each datagram except the last
	left    int    // how many datagrams are left

	from    netip.AddrPort // in the form of the socket's family
	control []byte         // without UDP_GRO's
	flags   int            // of recvmsg(2)
	run     bool           // there was more than one
}

// init begins a message. A stride below 1, or not below the length, is that of
// a single datagram; so is an empty message.
func (m *coalesced) init(payload []byte, stride int) {
	m.payload, m.size, m.left = payload, len(payload), 1
	if stride > 0 && stride < len(payload) {
		m.size, m.left = stride, (len(payload)+stride-1)/stride
	}
	m.run = m.left > 1
}

// first is the first of the datagrams that are left. There must be one.
func (m *coalesced) first() []byte { return m.payload[:min(m.size, len(m.payload))] }

// drop drops the first datagram.
func (m *coalesced) drop() {
	m.payload = m.payload[min(m.size, len(m.payload)):]
	m.left--
}

// A gro knows whether a Conn lets the kernel coalesce, and if not, why. The
// receiver's mu guards it.
type gro struct {
	off    string // why it is off for good
	reason string // why it is off, as the last probe found

	forced  bool // GROOn
	on      bool // we have set the option
	userSet bool // the user had set it at New, or at the end of a Control
	probed  bool // reason is of the options as they are
	wanted  bool // it would be on if none of net's own reads were under way
	settled bool // it went off: reads are plain again once the queue is found empty

	controls int32 // Controls of the user's under way, which are to see the socket as the user left it
	resume   bool  // it was on before them

	longControl bool // more may come beside a datagram than fits in sys.ControlRoom; looked at where it matters

	brought bool          // runs came since it went on
	pause   time.Duration // how long it stayed off when it last brought nothing
}

// mayCome reports whether it may be turned on one day, as far as is known.
func (g *gro) mayCome() bool { return g.off == "" && (!g.probed || g.reason == "") }

// disabledReason is why coalescing is off, as far as is known.
func (g *gro) disabledReason() string {
	if g.off != "" {
		return g.off
	}
	return g.reason
}
