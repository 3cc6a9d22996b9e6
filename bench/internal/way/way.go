// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

// Package way has ways of sending datagrams, to be compared: package net's,
// those of golang.org/x/net, of batchconn, and loops in C.
package way

import (
	"net"
	"net/netip"
	"time"

	"github.com/batchconn/batchconn/internal/harness"
)

// A Load is what is sent, over and over: a batch of Count datagrams.
type Load struct {
	To    []netip.AddrPort
	Count int
	Burst int // datagrams in a row to a receiver, before it is the next one's turn
	Size  int
	Full  bool // before each Flush, a multiple of 64 datagrams were sent
}

// Destination is where datagram i goes.
func (l *Load) Destination(i int) netip.AddrPort { return l.To[i/l.Burst%len(l.To)] }

// Run is how many datagrams from i on go to one destination, up to a limit.
func (l *Load) Run(i, limit int) int {
	n := 1
	for n < limit && i+n < l.Count && l.Destination(i+n) == l.Destination(i) {
		n++
	}
	return n
}

// A Batch is the datagrams of one sender.
type Batch struct {
	Load
	Datagrams [][]byte
	payload   []byte // all of them, if not roomy
}

// Together is datagrams i to i+n, of a batch that is not roomy, as one slice.
func (b *Batch) Together(i, n int) []byte { return b.payload[i*b.Size : (i+n)*b.Size : (i+n)*b.Size] }

// room is behind each datagram of a roomy batch, as wireguard-go's packets have
// it.
const room = 1<<16 - 1

// NewBatch makes datagrams that lie one behind the other or, if roomy, each in
// a buffer of its own with room behind it.
func NewBatch(l Load, roomy bool) *Batch {
	b := &Batch{Load: l, Datagrams: make([][]byte, l.Count)}
	if !roomy {
		b.payload = make([]byte, l.Count*l.Size)
	}
	payload := b.payload
	for i := range b.Datagrams {
		if roomy {
			b.Datagrams[i] = make([]byte, l.Size, room)
			continue
		}
		b.Datagrams[i], payload = payload[:l.Size:l.Size], payload[l.Size:]
	}
	return b
}

// A Way is one way of sending.
type Way struct {
	Name  string
	Roomy bool // it wants a roomy batch
	Open  func(l *Load) (*Socket, error)
}

// A Socket is a UDP socket with a way of sending on it. Any number of senders
// may send at once.
type Socket struct {
	Sender func(b *Batch) Sender
	Flush  func() error // waits until what the senders took has left; nil if it has when they return
	Close  func() error
}

// A Sender sends its batch over and over for about d, but at least once, and
// returns how many datagrams it sent.
type Sender func(d time.Duration) (int, error)

// Repeat is a Sender that sends n datagrams with each call of f.
func Repeat(n int, f func() error) Sender {
	return func(d time.Duration) (int, error) { return harness.Repeat(n, d, f) }
}

// Listen opens a socket to send from. It is bound to no address, because that
// of wireguard-go cannot be, and the kernel then looks for one at each send.
func Listen() (*net.UDPConn, error) { return net.ListenUDP("udp4", nil) }
