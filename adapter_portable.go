// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"net"
	"syscall"

	"golang.org/x/net/ipv4"
)

// An adapterPortable sends one datagram a system call: for systems where x/net
// has no batch call, and kernels that answer ENOSYS to it.
type adapterPortable struct {
	adapter // of the socket's family
	conn    *net.UDPConn
	raw     syscall.RawConn
	isIPv6  bool
}

func newAdapterPortable(family adapter, c *net.UDPConn, raw syscall.RawConn, isIPv6 bool) adapter {
	return &adapterPortable{family, c, raw, isIPv6}
}

// writeBatch sends the first of ms: what can end a call is looked at before each
// system call.
func (a *adapterPortable) writeBatch(ms []ipv4.Message, flags int) (n int, err error) {
	m := &ms[0]
	if m.N, err = a.writeOne(m, flags); err != nil {
		return 0, err
	}
	return 1, nil
}
