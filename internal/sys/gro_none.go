// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build !linux || android || batchconn_portable

package sys

import "errors"

// MsgErrQueue is the flag to receive from the socket's queue of errors; 0 where
// there is none.
const MsgErrQueue = 0

// ControlRoom is room for all control messages of a datagram.
const ControlRoom = 512

// ReasonGROSet is what NoCoalescingReason says when the option is set already.
const ReasonGROSet = "UDP_GRO is set on the socket"

const reasonNoGRO = "UDP_GRO is not used on this system"

// NoCoalescingReason says why a socket must not coalesce.
func NoCoalescingReason(fd uintptr, forced bool) string { return reasonNoGRO }

// NoOptionReason says the same.
func NoOptionReason(fd uintptr) string { return reasonNoGRO }

// MergesMarks says why a socket that coalesces must not.
func MergesMarks(fd uintptr, forced bool) string { return "" }

// HasLongControl is not asked where nothing is read ahead.
func HasLongControl(fd uintptr) bool { return false }

// SetCoalescing sets UDP_GRO, of which this system knows nothing.
func SetCoalescing(fd uintptr, on bool) error { return errors.ErrUnsupported }

// Coalescing reports whether UDP_GRO is set, and whether the socket knows it.
func Coalescing(fd uintptr) (on, known bool) { return false, false }

// SocketCookie is a number of a socket's own, 0 where there is none.
func SocketCookie(fd uintptr) uint64 { return 0 }

// TakeStride takes the kernel's UDP_GRO message out of control data.
func TakeStride(control []byte) (stride int, rest []byte) { return 0, control }

// PutControl is not called where nothing is coalesced.
func PutControl(dst, src []byte) (n int, truncated bool) {
	panic("batchconn: no coalescing on this system")
}
