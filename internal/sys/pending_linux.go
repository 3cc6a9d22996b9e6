// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package sys

import (
	"syscall"

	"golang.org/x/sys/unix"
)

func init() {
	PendingErrors = append(PendingErrors, syscall.ENONET) // no other system has it
}

// HasErrorQueue reports whether what ICMP says is put into the socket's error
// queue (IP_RECVERR, IPV6_RECVERR). It then is pending too, and is told by the
// next send, also on a socket that is not connected (__udp4_lib_err,
// net/ipv4/udp.c).
func HasErrorQueue(fd uintptr) bool {
	v4, _ := unix.GetsockoptInt(int(fd), unix.SOL_IP, unix.IP_RECVERR)
	v6, _ := unix.GetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_RECVERR)
	return v4 != 0 || v6 != 0
}

// FullIsENOBUFS reports whether ENOBUFS may mean a full socket: of a datagram
// that has to be fragmented Linux makes the first fragment if there is any
// room, and fails if there is none for the others (__ip_append_data,
// net/ipv4/ip_output.c).
const FullIsENOBUFS = true
