// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package reading

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"

	"github.com/batchconn/batchconn"

	"github.com/batchconn/batchconn/internal/harness"
)

// A Load is what is sent to be read: bursts of datagrams of a size. Each of the
// flows, which are sockets, sends its part of a burst in a row.
type Load struct {
	Flows     int  `json:"flows"`
	Burst     int  `json:"burst"`
	Size      int  `json:"size"`
	Segmented bool `json:"segmented"` // the kernel still has them in one piece
}

// A Feed is a way of reading with a sender that feeds it.
type Feed struct {
	harness.Burst
	socket  *Socket
	conns   []*batchconn.Conn // by flow
	payload []byte
	last    int // bytes of the last datagram
	size    int
}

// NewFeed opens both. The last datagram is shorter, as that of a run may be.
func NewFeed(w Way, l Load) (*Feed, error) {
	f := &Feed{size: l.Size, last: max(1, l.Size-7)}
	if l.Burst == 1 {
		f.last = l.Size
	}
	f.Mail = harness.NewMailbag(l.Burst, l.Size)
	f.payload = make([]byte, (l.Burst-1)*l.Size+f.last)
	var err error
	if f.socket, err = w.Open(f.Mail); err != nil {
		return nil, err
	}
	if err := f.openSenders(l); err != nil {
		f.Close()
		return nil, err
	}
	f.Read, f.SetReadDeadline = f.socket.Read, f.socket.SetReadDeadline
	return f, nil
}

func (f *Feed) openSenders(l Load) error {
	cfg := &batchconn.Config{GSO: batchconn.GSOOff}
	if l.Segmented {
		cfg.GSO = batchconn.GSOOn
	}
	msgs := batchconn.AppendSegments(nil, f.socket.Addr, f.payload, l.Size, nil)
	part := (len(msgs) + l.Flows - 1) / l.Flows
	for range l.Flows {
		u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return err
		}
		c, err := batchconn.New(u, cfg)
		if err != nil {
			u.Close()
			return err
		}
		f.conns = append(f.conns, c)
	}
	f.Send = func() error {
		for i, c := range f.conns {
			own := msgs[min(i*part, len(msgs)):min((i+1)*part, len(msgs))]
			if err := harness.SendAll(c, context.Background(), own); err != nil {
				return err
			}
		}
		return nil
	}
	return nil
}

// Close closes both ends.
func (f *Feed) Close() {
	for _, c := range f.conns {
		c.Close()
	}
	f.socket.Close()
}

// Check sends bursts that no other is like, and looks for each datagram:
// complete, once, in order. lost is how many did not come.
func (f *Feed) Check(bursts int) (lost int, err error) {
	for range bursts {
		f.stamp()
		var times harness.BurstTimes
		n, err := f.Run(&times)
		if err != nil {
			return lost, err
		}
		if lost += len(f.Mail.Buffers) - n; lost > 0 {
			return lost, nil
		}
		for i := range n {
			if want := f.datagram(i); !bytes.Equal(f.Mail.Datagram(i), want) {
				return 0, fmt.Errorf("datagram %d of %d: %d bytes are not the %d that were sent", i+1, n, f.Mail.Lengths[i], len(want))
			}
		}
	}
	return 0, nil
}

func (f *Feed) datagram(i int) []byte {
	return f.payload[i*f.size : min((i+1)*f.size, len(f.payload))]
}

// stamp writes what no other burst has.
func (f *Feed) stamp() {
	r := rand.New(rand.NewPCG(rand.Uint64(), 0))
	var word [8]byte
	for n := 0; n < len(f.payload); {
		binary.BigEndian.PutUint64(word[:], r.Uint64())
		n += copy(f.payload[n:], word[:])
	}
}

// Fit halves a load's burst until package net's reader loses nothing: until a
// receive buffer holds it.
func Fit(l Load) (Load, error) {
	for ; ; l.Burst /= 2 {
		f, err := NewFeed(Net, l)
		if err != nil {
			return l, err
		}
		lost, err := f.Check(3)
		f.Close()
		if lost == 0 || l.Burst == 1 || err != nil {
			return l, err
		}
	}
}
