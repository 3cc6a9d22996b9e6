// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package sys

import (
	"os"

	"golang.org/x/sys/unix"
)

// SetDontFragment has the DF bit set on every datagram of a socket, and none
// fragmented by this system: too long is EMSGSIZE. On Linux that is path MTU
// discovery by the user (IP_PMTUDISC_PROBE, ip(7)). A dual-stack socket needs
// it for both families.
func SetDontFragment(fd uintptr, isIPv6 bool) error {
	err := unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
	if err == nil && isIPv6 {
		err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)
	}
	return os.NewSyscallError("setsockopt", err)
}
