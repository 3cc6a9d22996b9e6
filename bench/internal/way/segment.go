// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package way

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// MaxSegments is how many datagrams of a size go in one segmented message.
func MaxSegments(size int) int {
	const maxSegments, maxPayload = 64, 65507
	return min(maxSegments, maxPayload/size)
}

// SegmentControl is the control message for segments of a size.
func SegmentControl(size int) []byte {
	b := make([]byte, unix.CmsgSpace(2))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	*(*uint16)(unsafe.Pointer(&b[unix.CmsgLen(0)])) = uint16(size)
	return b
}
