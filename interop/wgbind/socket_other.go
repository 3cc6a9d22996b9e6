// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build !linux

package wgbind

import (
	"net"

	"golang.org/x/net/ipv4"
)

// SetMark does nothing.
func (b *Bind) SetMark(mark uint32) error { return nil }

// joinReceived does nothing: datagrams come one by one.
func joinReceived(*net.UDPConn) {}

func joined(m *ipv4.Message) (size int, info []byte) { return m.N, m.OOB[:m.NN] }
