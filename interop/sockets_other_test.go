// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build !linux

package interop

import (
	"net"
	"net/netip"
	"testing"
	"time"
)

// A receiver is a UDP socket.
type receiver struct{ c *net.UDPConn }

func newReceiver(t *testing.T, e netEnd) (receiver, netip.AddrPort) {
	t.Helper()
	c := network{[2]netEnd{e, e}}.listen(t, near)
	return receiver{c}, c.LocalAddr().(*net.UDPAddr).AddrPort()
}

func (r receiver) receive(b []byte) (int, error) {
	r.c.SetReadDeadline(time.Now().Add(patience / 2))
	return r.c.Read(b)
}

func (r receiver) isEmpty() bool {
	r.c.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := r.c.Read(make([]byte, 1))
	return err != nil
}

// cpuTime is not measured.
func cpuTime() time.Duration { return 0 }

// A callCounter counts nothing here.
type callCounter struct{}

func countCalls() callCounter     { return callCounter{} }
func (c callCounter) stop() int64 { return 0 }
