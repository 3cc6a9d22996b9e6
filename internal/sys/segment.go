// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package sys

// RunLimits are what a socket's options ask of the runs that are sent as
// segmented messages.
type RunLimits struct {
	// Even6: runs to IPv6 addresses have no shorter last datagram. On such a
	// socket the kernel sends nothing in fragments. If a firewall reroutes a
	// run to a smaller MTU it drops the segments that are too long, sends the
	// others, and says EMSGSIZE (ip6_finish_output_gso_slowpath_drop,
	// net/ipv6/ip6_output.c). Segments of one size are dropped together.
	Even6 bool

	// PacingRate is SO_MAX_PACING_RATE in bytes a second, or 0. Pacing is by
	// kernel message (tc-fq(8)).
	PacingRate uint64
}
