// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build unix && !linux

package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// SetDontFragment has the DF bit set on every datagram of a socket, and none
// fragmented by this system: too long is EMSGSIZE. A dual-stack socket needs it
// for both families.
func SetDontFragment(fd uintptr, isIPv6 bool) error {
	if !isIPv6 {
		return setDontFragment4(fd)
	}
	if err := unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 1); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	if only, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_V6ONLY); err == nil && only != 0 {
		return nil
	}
	return setDontFragmentMapped(fd)
}
