// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

// Package cloop has the loops in C that one would write by hand to send and to
// receive datagrams, and those of GLib, which is looked for when it is needed.
package cloop

import (
	"net/netip"
	"time"
)

// Sending is a way of sending, of send.c or glib.c.
type Sending int

// The ways of sending.
const (
	Sendto           Sending = iota
	Sendmmsg                 // a message for each datagram
	Segmented                // UDP_SEGMENT, one vector for a run
	SegmentedVectors         // UDP_SEGMENT, a vector for each datagram
	GLibSend                 // g_socket_send_messages
)

// Receiving is a way of receiving, of recv.c or glib.c.
type Receiving int

// The ways of receiving.
const (
	Recvfrom Receiving = iota
	Recvmmsg
	GRO         // recvmmsg with UDP_GRO, each datagram copied out
	GLibReceive // g_socket_receive_messages
)

// A Job is what is sent: count datagrams, which lie one behind the other, burst
// in a row to each destination in turn, over and over. Batches are sent between
// looks at the clock.
type Job struct {
	FD                          int
	To                          []netip.AddrPort
	Payload                     []byte
	Count, Size, Burst, Batches int
	Time                        time.Duration
}
