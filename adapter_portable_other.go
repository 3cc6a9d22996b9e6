// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build !unix

package batchconn

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"

	"golang.org/x/net/ipv4"
)

// writeOne sends one datagram with package net, which has no flags here and
// gathers nothing. It first asks whether there is room, since net would wait
// for it under the descriptor's lock.
func (a *adapterPortable) writeOne(m *ipv4.Message, flags int) (int, error) {
	if flags != 0 {
		return 0, os.NewSyscallError("sendmsg", errors.ErrUnsupported)
	}
	if ok, err := writable(a.raw); err != nil || !ok {
		if err == nil {
			err = errWouldBlock
		}
		return 0, err
	}
	p := m.Buffers[0]
	if len(m.Buffers) > 1 {
		p = slices.Concat(m.Buffers...)
	}
	var to netip.AddrPort
	if udp, ok := m.Addr.(*net.UDPAddr); ok {
		to = udp.AddrPort()
	}
	if len(p) > a.maxPayload(to.Addr()) {
		return 0, errMessageTooLong // Windows says WSAEMSGSIZE, which is no syscall.EMSGSIZE
	}
	n, _, err := a.conn.WriteMsgUDPAddrPort(p, m.OOB, to)
	return n, err
}

// readBatch reads one datagram where x/net reads none.
func (a *adapterPortable) readBatch(ms []ipv4.Message, flags int) (int, error) {
	if len(ms) == 0 {
		return 0, nil
	}
	if flags != 0 {
		return 0, &net.OpError{Op: "read", Net: "udp", Source: a.conn.LocalAddr(), Err: errors.ErrUnsupported}
	}
	m := &ms[0]
	var p []byte
	if len(m.Buffers) == 1 {
		p = m.Buffers[0]
	} else {
		size := 0
		for _, v := range m.Buffers {
			size += len(v)
		}
		p = make([]byte, size)
	}
	n, oobn, got, addr, err := a.conn.ReadMsgUDP(p, m.OOB)
	if err != nil {
		return 0, err
	}
	if len(m.Buffers) > 1 {
		rest := p[:n]
		for _, v := range m.Buffers {
			rest = rest[copy(v, rest):]
		}
	}
	m.N, m.NN, m.Flags, m.Addr = n, oobn, got, addr
	return 1, nil
}
