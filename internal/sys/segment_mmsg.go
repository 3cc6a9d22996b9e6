// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux && !android && !batchconn_portable

package sys

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"

	"golang.org/x/sys/unix"
)

// HarmlessFlags do the same to a segmented message as to its datagrams.
// MSG_MORE, for one, makes the kernel ignore the segment size.
const HarmlessFlags = unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL | unix.MSG_CONFIRM | unix.MSG_DONTROUTE

// maxRunControl bounds the user's control data in a segmented message. It is
// more than all harmless control messages together.
const maxRunControl = 256

// AppendSegmentControl appends the control message that has the kernel cut at
// size, and after it the user's control messages.
func AppendSegmentControl(b []byte, size int, control []byte) []byte {
	b, data := AppendControl(b, unix.SOL_UDP, unix.UDP_SEGMENT, 2)
	binary.NativeEndian.PutUint16(data, uint16(size))
	return append(b, control...)
}

// Segmentable reports whether control messages mean the same for a segmented
// message as for each of its datagrams. What is unknown does not: send times,
// zero-copy and extension headers act per kernel message, and with SOL_UDP the
// user segments already.
func Segmentable(control []byte) bool {
	if len(control) == 0 {
		return true
	}
	if len(control) > maxRunControl {
		return false
	}
	for len(control) > 0 {
		level, typ, _, rest, ok := NextControl(control)
		if !ok || !harmlessControl(level, typ) {
			return false
		}
		control = rest
	}
	return true
}

// FindSegmentControl finds a control message that has the kernel cut, which is
// control[start:end], and says at what size. A size of 0 is none.
func FindSegmentControl(control []byte) (size, start, end int) {
	for before := control; len(before) > 0; {
		level, typ, data, rest, ok := NextControl(before)
		if !ok {
			break
		}
		if level == unix.SOL_UDP && typ == unix.UDP_SEGMENT && len(data) == 2 {
			return int(binary.NativeEndian.Uint16(data)), len(control) - len(before), len(control) - len(rest)
		}
		before = rest
	}
	return 0, 0, 0
}

func harmlessControl(level, typ int) bool {
	switch level {
	case unix.SOL_IP:
		return typ == unix.IP_PKTINFO || typ == unix.IP_TOS || typ == unix.IP_TTL
	case unix.SOL_IPV6:
		return typ == unix.IPV6_PKTINFO || typ == unix.IPV6_TCLASS || typ == unix.IPV6_HOPLIMIT
	case unix.SOL_SOCKET:
		return typ == unix.SO_MARK || typ == unix.SO_PRIORITY
	}
	return false
}

// segmentOptions are socket options with which a segmented message does
// something else than its datagrams would. mask holds the bits that matter. Of
// the options of socket(7), ip(7), ipv6(7) and udp(7) that act on what is sent,
// these act once for each kernel message. The others do the same to each
// segment (TOS, TTL, marks, priorities, multicast), have the kernel refuse the
// run (SO_NO_CHECK, UDP_NO_CHECK6_TX, IPV6_MTU, the IPsec policies), or are in
// [RunLimits].
var segmentOptions = []struct {
	level, name int
	mask        uint32
	reason      string
}{
	{unix.SOL_UDP, unix.UDP_SEGMENT, anyBit, "UDP_SEGMENT is set on the socket"}, // the user segments already
	{unix.SOL_UDP, unix.UDP_CORK, anyBit, "UDP_CORK is set"},                     // makes the kernel ignore the segment size
	{unix.SOL_SOCKET, unix.SO_TIMESTAMPING, txTimestamps, "SO_TIMESTAMPING asks for TX timestamps"},
	{unix.SOL_SOCKET, unix.SO_WIFI_STATUS, anyBit, "SO_WIFI_STATUS is set"}, // one report instead of n
	{unix.SOL_SOCKET, unix.SO_ZEROCOPY, anyBit, "SO_ZEROCOPY is set"},       // as TX timestamps: one completion instead of n
	{unix.SOL_SOCKET, unix.SO_TXTIME, anyBit, "SO_TXTIME is set"},           // likewise; a clock, and 0 is none that paces
	{unix.SOL_IP, unix.IP_RECVERR, anyBit, "IP_RECVERR is set"},             // a partly queued message is no ENOBUFS
	{unix.SOL_IPV6, unix.IPV6_RECVERR, anyBit, "IPV6_RECVERR is set"},
	{unix.SOL_IP, unix.IP_OPTIONS, anyLength, "IP_OPTIONS are set"}, // this and the rest lengthen the header
	{unix.SOL_IPV6, unix.IPV6_HOPOPTS, anyLength, "IPV6_HOPOPTS are set"},
	{unix.SOL_IPV6, unix.IPV6_RTHDR, anyLength, "IPV6_RTHDR is set"},
	{unix.SOL_IPV6, unix.IPV6_RTHDRDSTOPTS, anyLength, "IPV6_RTHDRDSTOPTS are set"},
	{unix.SOL_IPV6, unix.IPV6_DSTOPTS, anyLength, "IPV6_DSTOPTS are set"},
}

const (
	anyBit    = ^uint32(0)
	anyLength = 0 // the option is set if it has any length

	// txTimestamps are the bits of SO_TIMESTAMPING that make the kernel report
	// on what is sent (linux/net_tstamp.h); 1<<18 is TX_COMPLETION.
	txTimestamps = unix.SOF_TIMESTAMPING_TX_HARDWARE | unix.SOF_TIMESTAMPING_TX_SOFTWARE |
		unix.SOF_TIMESTAMPING_TX_SCHED | unix.SOF_TIMESTAMPING_TX_ACK | 1<<18
)

// NoSegmentsReason says why a socket must not segment, or nothing if it may.
func NoSegmentsReason(fd uintptr) string { return socketReason(int(fd)) }

func socketReason(fd int) string {
	if _, err := unix.GetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT); err != nil {
		return "the socket has no UDP_SEGMENT: " + err.Error()
	}
	for _, o := range segmentOptions {
		value, length, ok := sockopt(fd, o.level, o.name)
		if ok && (o.mask == anyLength && length > 0 || value&o.mask != 0) {
			return o.reason
		}
	}
	return ""
}

// RunLimitsOf are what a socket's options ask of its runs.
func RunLimitsOf(fd uintptr) (l RunLimits) {
	// The modes under which the kernel sends no datagram in fragments
	// (ip6_sk_ignore_df, include/net/ip6_route.h).
	if mode, _, ok := sockopt(int(fd), unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER); ok {
		l.Even6 = mode == unix.IPV6_PMTUDISC_DO || mode == unix.IPV6_PMTUDISC_PROBE || mode == unix.IPV6_PMTUDISC_INTERFACE
	}
	l.PacingRate = pacingRate(int(fd))
	return l
}

// pacingRate is SO_MAX_PACING_RATE, an unsigned long of which no bit or all
// bits are no limit (sk_setsockopt, net/core/sock.c).
func pacingRate(fd int) uint64 {
	var rate uint64
	n := uint32(unsafe.Sizeof(uintptr(0)))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE,
		uintptr(unsafe.Pointer(&rate)), uintptr(unsafe.Pointer(&n)), 0)
	b := (*[8]byte)(unsafe.Pointer(&rate))
	if n == 4 {
		rate = uint64(binary.NativeEndian.Uint32(b[:]))
	}
	if errno != 0 || n == 4 && rate == math.MaxUint32 || rate == math.MaxUint64 {
		return 0
	}
	return rate
}

// sockopt reads the first word of an option, and its length, which no function
// of x/sys returns.
func sockopt(fd, level, name int) (value uint32, length int, ok bool) {
	var buf [64]byte
	n := uint32(len(buf))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name),
		uintptr(unsafe.Pointer(&buf)), uintptr(unsafe.Pointer(&n)), 0)
	return binary.NativeEndian.Uint32(buf[:]), int(n), errno == 0
}

// maxHeaders bounds the bytes of headers that kernels before 5.16 counted into
// the number of segments (commit 158390e45612).
const maxHeaders = 60

// CountedHeaders are those that this kernel counts into the number of segments.
var CountedHeaders = headersCountedBy(KernelRelease())

func headersCountedBy(release string) int {
	if major, minor, _ := ParseRelease(release); major > 5 || major == 5 && minor >= 16 {
		return 0
	}
	return maxHeaders
}

// DamagedRelease says that the kernel is of those that send equal-sized
// segments with bad headers, or nothing.
func DamagedRelease() string { return damagedRelease(KernelRelease()) }

// damagedRelease knows 7.0.0 to 7.1.4 (tailscale/tailscale#19777, #19918). It
// is a guess, since distributions patch both ways.
func damagedRelease(release string) string {
	major, minor, patch := ParseRelease(release)
	if major == 7 && (minor == 0 || minor == 1 && patch <= 4) {
		return fmt.Sprintf("kernel %s may send damaged segments; GSOOn overrides", release)
	}
	return ""
}
