// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux && !android && !batchconn_portable

package sys

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// SetCoalescing sets UDP_GRO: whether the kernel may hand over a run of
// datagrams as one message, with a control message that says their size.
func SetCoalescing(fd uintptr, on bool) error {
	value := 0
	if on {
		value = 1
	}
	return unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO, value)
}

// Coalescing reports whether UDP_GRO is set, and whether the socket knows it.
func Coalescing(fd uintptr) (on, known bool) {
	v, err := unix.GetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO)
	return v != 0, err == nil
}

// SocketCookie is a number that no other socket of this system has or had
// (SO_COOKIE), or 0 where there is none: every duplicate of a descriptor has
// the same.
func SocketCookie(fd uintptr) uint64 {
	var cookie [8]byte // a uint64 on the stack of a 32-bit system may be aligned to 4
	size := uint32(len(cookie))
	if _, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_COOKIE,
		uintptr(unsafe.Pointer(&cookie)), uintptr(unsafe.Pointer(&size)), 0); errno != 0 {
		return 0
	}
	return binary.NativeEndian.Uint64(cookie[:])
}

// A reasonOption is a socket option that is a reason not to coalesce, or its name.
type reasonOption struct {
	level, name int
	reason      string
}

// coalesceOptions are socket options with which a run tells something else than
// its datagrams would, or more than fits in ControlRoom.
var coalesceOptions = []reasonOption{
	{unix.SOL_IP, unix.IP_RECVOPTS, "IP_RECVOPTS is set"},
	{unix.SOL_IP, unix.IP_RETOPTS, "IP_RETOPTS is set"},
	{unix.SOL_IP, unix.IP_PASSSEC, "IP_PASSSEC is set"},
	{unix.SOL_IPV6, unix.IPV6_RECVHOPOPTS, "IPV6_RECVHOPOPTS is set"},
	{unix.SOL_IPV6, unix.IPV6_RECVRTHDR, "IPV6_RECVRTHDR is set"},
	{unix.SOL_IPV6, unix.IPV6_RECVDSTOPTS, "IPV6_RECVDSTOPTS is set"},
	{unix.SOL_IPV6, unix.IPV6_2292HOPOPTS, "IPV6_2292HOPOPTS is set"},
	{unix.SOL_IPV6, unix.IPV6_2292RTHDR, "IPV6_2292RTHDR is set"},
	{unix.SOL_IPV6, unix.IPV6_2292DSTOPTS, "IPV6_2292DSTOPTS is set"},
}

// mixedOptions tell what differs between the datagrams that older kernels
// merged.
var mixedOptions = []reasonOption{
	{unix.SOL_IP, unix.IP_RECVTOS, "IP_RECVTOS"},
	{unix.SOL_IP, unix.IP_RECVTTL, "IP_RECVTTL"},
	{unix.SOL_IPV6, unix.IPV6_RECVTCLASS, "IPV6_RECVTCLASS"},
	{unix.SOL_IPV6, unix.IPV6_RECVHOPLIMIT, "IPV6_RECVHOPLIMIT"},
}

// ControlRoom is room for all control messages of a datagram that a socket may
// coalesce: 510 bytes if all options are set that it may have.
const ControlRoom = 512

// ReasonGROSet is what NoCoalescingReason says when the option is set already.
const ReasonGROSet = "UDP_GRO is set on the socket"

// NoCoalescingReason says why a socket must not coalesce, or nothing if it may.
// forced says that datagrams may merge that differ in what the socket asks for.
func NoCoalescingReason(fd uintptr, forced bool) string {
	return noCoalescingReason(fd, forced, KernelRelease())
}

func noCoalescingReason(fd uintptr, forced bool, release string) string {
	if reason := noOptionReason(fd, release); reason != "" {
		return reason
	}
	if reason := anySet(fd, coalesceOptions); reason != "" {
		return reason
	}
	if hasFilter(fd) { // it would see the length of a run
		return "a filter is attached to the socket"
	}
	return mergesMarks(fd, forced, release)
}

// NoOptionReason is the part of [NoCoalescingReason] that the other options
// have nothing to do with: whether there is UDP_GRO, and it is not set.
func NoOptionReason(fd uintptr) string { return noOptionReason(fd, KernelRelease()) }

func noOptionReason(fd uintptr, release string) string {
	major, minor, _ := ParseRelease(release)
	if major < 5 || major == 5 && minor < 12 { // which do not let us see whether it is set; 5.0.0 to 5.0.12 crash (CVE-2019-11683)
		return fmt.Sprintf("kernel %s is older than 5.12", release)
	}
	switch on, known := Coalescing(fd); {
	case !known:
		return "the socket has no UDP_GRO"
	case on:
		return ReasonGROSet
	}
	return ""
}

// MergesMarks says why a socket that coalesces must not: it asks for TOS or
// TTL, and the kernel merges datagrams of different ones.
func MergesMarks(fd uintptr, forced bool) string {
	return mergesMarks(fd, forced, KernelRelease())
}

func mergesMarks(fd uintptr, forced bool, release string) string {
	major, minor, _ := ParseRelease(release)
	if forced || major > 6 || major == 6 && minor >= 9 { // commit 5babae777c61
		return ""
	}
	if name := anySet(fd, mixedOptions); name != "" {
		return fmt.Sprintf("%s is set, and kernel %s merges datagrams of different ECN and TTL; GROOn overrides", name, release)
	}
	return ""
}

// anySet is what options say of the first that is set.
func anySet(fd uintptr, options []reasonOption) string {
	for _, o := range options {
		if v, _, ok := sockopt(int(fd), o.level, o.name); ok && v != 0 {
			return o.reason
		}
	}
	return ""
}

// HasLongControl reports whether what comes beside a datagram may be more than
// fits in ControlRoom. Those of coalesceOptions that tell little cost nothing but
// reading ahead.
func HasLongControl(fd uintptr) bool { return anySet(fd, coalesceOptions) != "" }

// hasFilter reports whether a BPF program filters what the socket receives. The
// kernel says how long a classic one is, and EACCES for others (sk_get_filter).
func hasFilter(fd uintptr) bool {
	var length uint32
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, 0, uintptr(unsafe.Pointer(&length)), 0)
	return errno == unix.EACCES || errno == 0 && length > 0
}

// TakeStride takes the kernel's UDP_GRO message out of control data. It
// returns the size of the datagrams, 0 if there is no such message, and what is
// left. It writes to control.
func TakeStride(control []byte) (stride int, left []byte) {
	for rest := control; ; {
		at := len(control) - len(rest)
		level, typ, data, after, ok := NextControl(rest)
		if !ok {
			return 0, control
		}
		if level == unix.SOL_UDP && typ == unix.UDP_GRO {
			if len(data) >= 4 { // an int, unlike UDP_SEGMENT's
				stride = int(int32(binary.NativeEndian.Uint32(data)))
			}
			return max(stride, 0), append(control[:at], after...)
		}
		rest = after
	}
}

// PutControl puts the control messages of src into dst as the kernel puts them
// into a buffer (put_cmsg in net/core/scm.c): what does not fit is cut.
func PutControl(dst, src []byte) (n int, truncated bool) {
	for {
		_, _, data, after, ok := NextControl(src)
		if !ok {
			return n, truncated
		}
		room := dst[n:]
		if len(room) < cmsgLen(0) {
			return n, true
		}
		length := cmsgLen(len(data))
		cut := copy(room, src[:length])
		putControlLength(room, cut)
		truncated = truncated || cut < length
		n += min(cmsgSpace(len(data)), len(room))
		src = after
	}
}

func putControlLength(b []byte, length int) {
	if cmsgWord == 8 {
		binary.NativeEndian.PutUint64(b, uint64(length))
	} else {
		binary.NativeEndian.PutUint32(b, uint32(length))
	}
}
