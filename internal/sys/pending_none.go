// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build !linux

package sys

// HasErrorQueue reports whether what ICMP says is put into the socket's error
// queue; there is none on this system.
func HasErrorQueue(fd uintptr) bool { return false }

// FullIsENOBUFS reports whether ENOBUFS may mean a full socket. On the BSDs and
// macOS it is the queue of the device that is full, of which nothing tells when
// it has room.
const FullIsENOBUFS = false
