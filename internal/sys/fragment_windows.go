// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package sys

import (
	"os"

	"golang.org/x/sys/windows"
)

// Options of ws2ipdef.h, which x/sys does not name.
const (
	ipDontFragment = 14 // IP_DONTFRAGMENT
	ipv6DontFrag   = 14 // IPV6_DONTFRAG
)

// SetDontFragment has the DF bit set on every datagram of a socket, and none
// fragmented by this system: too long is WSAEMSGSIZE. A dual-stack socket needs
// it for both families.
func SetDontFragment(fd uintptr, isIPv6 bool) error {
	h, v4 := windows.Handle(fd), !isIPv6
	if isIPv6 {
		if err := windows.SetsockoptInt(h, windows.IPPROTO_IPV6, ipv6DontFrag, 1); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
		only, err := windows.GetsockoptInt(h, windows.IPPROTO_IPV6, windows.IPV6_V6ONLY)
		v4 = err != nil || only == 0
	}
	if !v4 {
		return nil
	}
	return os.NewSyscallError("setsockopt", windows.SetsockoptInt(h, windows.IPPROTO_IP, ipDontFragment, 1))
}
