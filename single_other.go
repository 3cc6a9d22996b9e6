// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build !unix

package batchconn

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
)

// A sendtoer does nothing where package net does all the sending.
type sendtoer struct{}

func newSendtoer(*net.UDPConn, syscall.RawConn, bool) (o sendtoer) { return o }

func (sendtoer) sendto([]byte, netip.AddrPort, int) error { return errors.ErrUnsupported }
