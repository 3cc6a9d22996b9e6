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

func (a *adapterPortable) writeBatch(ms []ipv4.Message, flags int) (n int, err error) {
	for n < len(ms) {
		bytes, err := a.writeOne(&ms[n], flags)
		if err != nil {
			return n, err
		}
		ms[n].N, ms[n].NN = bytes, len(ms[n].OOB)
		n++
	}
	return n, nil
}
