// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package sys

import (
	"errors"
	"fmt"
	"syscall"
)

// mappedDontFragment is the Darwin of macOS 15, the first on which
// IPV6_DONTFRAG is also for the IPv4 destinations of a dual-stack socket
// (draft-seemann-tsvwg-udp-fragmentation). Those before it say nothing, and
// fragment.
const mappedDontFragment = 24

func setDontFragmentMapped(uintptr) error {
	release, err := syscall.Sysctl("kern.osrelease")
	if err != nil {
		return err
	}
	var major int
	if fmt.Sscanf(release, "%d", &major); major < mappedDontFragment {
		return errors.ErrUnsupported
	}
	return nil
}
