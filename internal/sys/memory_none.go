// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build !linux

package sys

// SocketMemory says how many bytes of its receive buffer a socket uses, and how
// many datagrams it has dropped. That is not known here.
func SocketMemory(fd uintptr) (queued, drops uint32) { return 0, 0 }

// SendBufferFull reports whether no datagram finds room. That is not known
// here.
func SendBufferFull(fd uintptr) bool { return false }
