// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build !linux || android || batchconn_portable

package sys

// HarmlessFlags do the same to a segmented message as to its datagrams.
const HarmlessFlags = 0

// CountedHeaders are those that this kernel counts into the number of segments.
const CountedHeaders = 0

// NoSegmentsReason says why a socket must not segment, or nothing if it may.
func NoSegmentsReason(fd uintptr) string { return "UDP_SEGMENT is not used on this system" }

// RunLimitsOf are what a socket's options ask of its runs, of which there are
// none here.
func RunLimitsOf(fd uintptr) RunLimits { return RunLimits{} }

// DamagedRelease says that the kernel is of those that damage segments.
func DamagedRelease() string { return "" }

// Segmentable reports whether control messages mean the same for a segmented
// message as for each of its datagrams. Their meaning is not known here.
func Segmentable(control []byte) bool { return len(control) == 0 }

// AppendSegmentControl is not called where nothing is segmented.
func AppendSegmentControl(b []byte, size int, control []byte) []byte {
	panic("batchconn: no segmentation on this system")
}

// FindSegmentControl finds nothing where nothing is segmented.
func FindSegmentControl(control []byte) (size, start, end int) { return 0, 0, 0 }
