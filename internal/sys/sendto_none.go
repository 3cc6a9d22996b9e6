// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build !unix

package sys

import (
	"errors"
	"net/netip"
	"syscall"
)

// Sendto does nothing where package net does all the sending.
func Sendto(syscall.RawConn, bool, []byte, netip.AddrPort, int) error {
	return errors.ErrUnsupported
}

// IsSendtoRefused is of systems that have no such filters.
func IsSendtoRefused() bool { return false }
