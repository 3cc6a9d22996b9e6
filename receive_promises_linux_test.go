// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"net"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
)

// TestHeldMemoryOfMany: what many short datagrams are read ahead into is no
// more than half a MiB either.
func TestHeldMemoryOfMany(t *testing.T) {
	in, _, to := coalescing(t)
	plain := newConn(t, listen(t, "udp4", "127.0.0.1"), &Config{GSO: GSOOff})
	sent, read, maxHeld := 0, 0, 0
	sendRuns(t, plain, to, 60, &sent)
	for read < sent {
		readRuns(t, readNow(in), 1, &read)
		in.recv.mu.Lock()
		held := 0
		for b := in.recv.held; b != nil; b = b.next {
			for i := range b.blocks {
				held += len(b.blocks[i])
			}
		}
		maxHeld = max(maxHeld, held)
		in.recv.mu.Unlock()
	}
	if maxHeld > 512<<10 || maxHeld < blockSize {
		t.Errorf("%d bytes were held", maxHeld)
	}
}

// TestAddressForms: an address has the form that package net and x/net give it,
// that of IPv4 on an IPv6 socket too, whether it was read ahead or not.
func TestAddressForms(t *testing.T) {
	for _, k := range readKinds {
		for _, mode := range []GROMode{GROOff, GROOn} {
			w := k.world(t, &Config{GRO: mode})
			for sender := range w.senders {
				for _, read := range addressReads {
					w.send(t, sender, 1, 100, 0, 0, nil)
					got, err := read(w.conn)
					w.plain.SetReadDeadline(time.Now().Add(patience))
					_, want, wantErr := w.plain.ReadFromUDP(make([]byte, 100))
					if err != nil || wantErr != nil || !reflect.DeepEqual(got, want) {
						t.Errorf("%s, GRO %v, sender %d: %#v, %v; want %#v, %v", k.name, mode, sender, got, err, want, wantErr)
					}
				}
			}
			w.close()
		}
	}
}

var addressReads = []func(c *Conn) (*net.UDPAddr, error){
	func(c *Conn) (*net.UDPAddr, error) { _, a, err := c.ReadFromUDP(make([]byte, 100)); return a, err },
	func(c *Conn) (*net.UDPAddr, error) {
		_, a, err := c.ReadFrom(make([]byte, 100))
		u, _ := a.(*net.UDPAddr)
		return u, err
	},
	func(c *Conn) (*net.UDPAddr, error) {
		ms := []ipv4.Message{{Buffers: [][]byte{make([]byte, 100)}}}
		_, err := c.ReadBatch(ms, 0)
		u, _ := ms[0].Addr.(*net.UDPAddr)
		return u, err
	},
	func(c *Conn) (*net.UDPAddr, error) {
		_, a, err := c.ReadFromUDPAddrPort(make([]byte, 100))
		return formOf(a), err
	},
}

// formOf keeps the form that an address has.
func formOf(a netip.AddrPort) *net.UDPAddr {
	return &net.UDPAddr{IP: a.Addr().AsSlice(), Port: int(a.Port()), Zone: a.Addr().Zone()}
}
