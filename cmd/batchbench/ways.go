// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/batchconn/batchconn"
	"github.com/batchconn/batchconn/internal/harness"
	"github.com/batchconn/batchconn/internal/sys"
)

// A way is one way of sending. To compare another one, add a line to ways.
type way struct {
	name string
	open func(u *net.UDPConn) (*socket, error) // owns u from then on
}

// ways are compared with the first.
var ways = []way{
	{"net WriteTo loop", openNet},
	{"x/net WriteBatch", openXNet},
	{"SendMessages, GSO off", openConn(&batchconn.Config{GSO: batchconn.GSOOff})},
	{"SendMessages", openConn(nil)},
	{"WriteBatch", openWriteBatch},
	{"Writer's WriteTo loop", openWriter},
}

// A socket is a UDP socket with one way of sending on it.
type socket struct {
	conn interface {
		SetWriteDeadline(time.Time) error
		Close() error
	}

	// sender makes what one goroutine sends its slots with.
	sender func(slots []slot) sendFunc

	// calls is how many system calls carried what was sent so far; nil if
	// nobody counts them.
	calls func() uint64

	// flush waits until what was counted as sent has left; nil if it has.
	flush func() error
}

// A sendFunc sends slots[from:to], waiting for room. It returns how many were
// sent, always the first n, and an error only if none was.
type sendFunc func(from, to int) (n int, err error)

// A slot is a buffer that datagrams are sent from, all to one receiver.
type slot struct {
	p  []byte
	to netip.AddrPort
}

// openNet sends with one WriteTo after the other, in net's form that allocates
// nothing.
func openNet(u *net.UDPConn) (*socket, error) {
	var calls counter
	return &socket{
		conn:   u,
		calls:  calls.sum,
		sender: func(slots []slot) sendFunc { return writeEach(u.WriteToUDPAddrPort, slots, calls.add()) },
	}, nil
}

// writeEach sends with one write for each datagram and counts them.
func writeEach(write func(p []byte, to netip.AddrPort) (int, error), slots []slot, calls *uint64) sendFunc {
	return func(from, to int) (int, error) {
		for i := range slots[from:to] {
			s := &slots[from+i]
			if _, err := write(s.p, s.to); err != nil {
				return prefix(i, err)
			}
			*calls++
		}
		return to - from, nil
	}
}

// openWriter sends with the same loop on a Writer.
func openWriter(u *net.UDPConn) (*socket, error) {
	c, err := batchconn.New(u, nil)
	if err != nil {
		return nil, err
	}
	w := batchconn.NewWriter(c, nil)
	return &socket{
		conn:   w,
		calls:  callsOf(c),
		sender: func(slots []slot) sendFunc { return writeEach(w.WriteToUDPAddrPort, slots, new(uint64)) },
		flush: func() error {
			if err := w.SetWriteDeadline(time.Time{}); err != nil {
				return err
			}
			return w.Flush(context.Background())
		},
	}, nil
}

// openXNet sends with the WriteBatch of golang.org/x/net.
func openXNet(u *net.UDPConn) (*socket, error) {
	if runtime.GOOS == "windows" { // x/net sends nothing there
		return nil, errors.ErrUnsupported
	}
	pc := xnetConn(u)
	var calls counter
	return &socket{
		conn:   u,
		calls:  calls.sum,
		sender: func(slots []slot) sendFunc { return writeBatches(pc, slots, calls.add()) },
	}, nil
}

// openWriteBatch sends with the method of this package that takes the place of
// x/net's.
func openWriteBatch(u *net.UDPConn) (*socket, error) {
	c, err := batchconn.New(u, nil)
	if err != nil {
		return nil, err
	}
	return &socket{
		conn:   c,
		calls:  callsOf(c),
		sender: func(slots []slot) sendFunc { return writeBatches(c, slots, new(uint64)) },
	}, nil
}

// writeBatches sends with a WriteBatch and counts its calls.
func writeBatches(w harness.BatchWriter, slots []slot, calls *uint64) sendFunc {
	ms := make([]ipv4.Message, len(slots))
	for i, s := range slots {
		ms[i] = ipv4.Message{Buffers: [][]byte{s.p}, Addr: net.UDPAddrFromAddrPort(s.to)}
	}
	return func(from, to int) (int, error) {
		n, k, err := harness.WriteCounting(w, ms[from:to])
		*calls += uint64(k)
		if err != nil {
			return prefix(n, err)
		}
		return n, nil
	}
}

// openConn sends with SendMessages of this package.
func openConn(cfg *batchconn.Config) func(u *net.UDPConn) (*socket, error) {
	return func(u *net.UDPConn) (*socket, error) {
		c, err := batchconn.New(u, cfg)
		if err != nil {
			return nil, err
		}
		return &socket{
			conn:  c,
			calls: callsOf(c),
			sender: func(slots []slot) sendFunc {
				msgs := make([]batchconn.OutputMessage, len(slots))
				for i, s := range slots {
					msgs[i] = batchconn.OutputMessage{Addr: s.to, Vectors: [][]byte{s.p}}
				}
				return func(from, to int) (int, error) {
					return c.SendMessages(context.Background(), msgs[from:to], 0)
				}
			},
		}, nil
	}
}

// callsOf reads the system calls that c counts. Where there is no batch call,
// each that it counts may be several.
func callsOf(c *batchconn.Conn) func() uint64 {
	if !sys.HaveBatchCall {
		return nil
	}
	return func() uint64 { return c.Stats().Calls }
}

// prefix is an error after n datagrams: the next call meets it again.
func prefix(n int, err error) (int, error) {
	if n > 0 {
		return n, nil
	}
	return 0, err
}

// A counter counts in each sender's own memory. It is read when they rest.
type counter []*uint64

func (c *counter) add() *uint64 {
	n := &make([]uint64, 16)[0] // a cache line of its own
	*c = append(*c, n)
	return n
}

func (c *counter) sum() (n uint64) {
	for _, p := range *c {
		n += *p
	}
	return n
}
