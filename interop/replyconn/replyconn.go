// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

// Package replyconn is a net.PacketConn on batchconn that answers from the
// address that was asked, to be copied. It is for servers that read with
// ReadFrom and answer with WriteTo, on a wildcard address of a host that has
// several.
package replyconn

import (
	"net"

	"github.com/batchconn/batchconn"
)

// A Conn is a batchconn.Conn whose ReadFrom returns an *[Addr].
type Conn struct{ *batchconn.Conn }

// An Addr is where a datagram came from. WriteTo answers to it from the address
// that the datagram went to.
type Addr struct {
	net.UDPAddr
	control []byte
}

// New makes a Conn of udp and owns udp, which is closed if there is an error.
// It Is errors.ErrUnsupported where the system does not say what was asked.
func New(udp *net.UDPConn, cfg *batchconn.Config) (Conn, error) {
	c, err := batchconn.New(udp, cfg)
	if err == nil {
		err = c.ReceiveControl(batchconn.ControlLocal)
	}
	if err != nil {
		udp.Close()
		return Conn{}, err
	}
	return Conn{c}, nil
}

func (c Conn) ReadFrom(p []byte) (int, net.Addr, error) {
	var room [256]byte
	n, controlled, _, from, err := c.ReadMsgUDPAddrPort(p, room[:])
	if err != nil {
		return n, nil, err
	}
	var m batchconn.ControlMessage
	m.Parse(room[:controlled]) // of what cannot be read, the system picks the source
	m.Flags &= batchconn.ControlLocal
	return n, &Addr{*net.UDPAddrFromAddrPort(from), m.Append(nil, from.Addr())}, nil
}

func (c Conn) WriteTo(p []byte, to net.Addr) (int, error) {
	addr, ok := to.(*Addr)
	if !ok {
		return c.Conn.WriteTo(p, to)
	}
	n, _, err := c.WriteMsgUDPAddrPort(p, addr.control, addr.AddrPort())
	return n, err
}
