// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

// Package reading has ways of receiving datagrams, to be compared: package net's,
// those of golang.org/x/net, of batchconn, of other libraries, and loops in C.
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

	// Open reads into the mailbag, in place of whose buffers it may put its own.
	Open func(m *harness.Mailbag) (*Socket, error)
}

// A Socket receives on loopback. Read and SetReadDeadline are those of a
// [harness.Burst].
type Socket struct {
	Addr            netip.AddrPort
	Read            func(i int) (int, error)
	SetReadDeadline func(time.Time) error
	Close           func() error
}

// listen opens a socket on loopback.
func listen() (*net.UDPConn, netip.AddrPort, error) {
	u, err := harness.ListenUDP(&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	return u, u.LocalAddr().(*net.UDPAddr).AddrPort(), nil
}

// All are all ways; the first is what the others are compared with. missing says
// why others are not among them.
func All() (all []Way, missing []string) {
	all = []Way{Net, XNet, wireGuard, tailscale, quicGo, pion}
	inC, why := InC()
	if why != nil {
		missing = append(missing, why...)
	}
	all = append(all, inC...)
	return append(all, ConnLoop, ConnReadFrom, ConnReadBatch, ConnMessages), missing
}

// ErrSize is of a way that does not take datagrams of a size.
var ErrSize = errors.New("it has no room for datagrams of this size")
