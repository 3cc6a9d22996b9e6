// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

// Package reading has ways of receiving datagrams, to be compared: package
// net's, those of golang.org/x/net, of batchconn, of other libraries, and loops
// in C.
package reading

import (
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/batchconn/batchconn/internal/harness"
)

// A Way is one way of receiving.
type Way struct {
	Name string

	// Open listens at an address and reads into the mailbag, in place of whose
	// buffers it may put its own. A read begins at any of them.
	Open func(m *harness.Mailbag, at netip.Addr) (*Socket, error)
}

// A Socket receives. Read and SetReadDeadline are those of a [harness.Burst];
// not every way has deadlines.
type Socket struct {
	Addr            netip.AddrPort
	Read            func(i int) (int, error)
	SetReadDeadline func(time.Time) error
	Close           func() error

	// ReadsAhead: it may have datagrams that are in the kernel's queue no more. A
	// way that does has deadlines.
	ReadsAhead bool
}

// listen opens a socket at an address.
func listen(at netip.Addr) (*net.UDPConn, netip.AddrPort, error) {
	u, err := harness.ListenUDP(net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, 0)))
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	return u, u.LocalAddr().(*net.UDPAddr).AddrPort(), nil
}

// ErrSize is of a way that does not take datagrams of a size.
var ErrSize = errors.New("it has no room for datagrams of this size")
