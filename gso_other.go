// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build !linux || android || batchconn_portable

package batchconn

import "syscall"

const (
	harmlessFlags  = 0
	countedHeaders = 0
)

func whyNoSegments(syscall.RawConn, GSOMode, bool) string {
	return "UDP_SEGMENT is not used on this system"
}

// segmentable says no to control messages, whose meaning is not known here.
func segmentable(control []byte) bool { return len(control) == 0 }

func appendSegmentControl(b []byte, size int, control []byte) []byte {
	panic("batchconn: no segmentation on this system")
}
