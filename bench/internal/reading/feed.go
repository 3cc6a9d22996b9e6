// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package reading

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"time"

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

// A Medium is what is between senders and the receiver.
type Medium struct {
	Name     string
	From, To netip.Addr

	// There calls a function in the receiver's network; nil: it is the caller's.
	There func(f func() error) error

	// Settle is how long the medium may keep what was sent.
	Settle time.Duration
}

// Loopback is the medium that is always there.
var Loopback = Medium{Name: "loopback", From: netip.AddrFrom4([4]byte{127, 0, 0, 1}), To: netip.AddrFrom4([4]byte{127, 0, 0, 1})}

// Do calls f in the receiver's network.
func (m *Medium) Do(f func() error) error {
	if m.There == nil {
		return f()
	}
	return m.There(f)
}

// A Feed is a way of reading with a sender that feeds it.
type Feed struct {
	harness.Burst
	socket  Opened
	conns   []*batchconn.Conn // by flow
	payload []byte
	last    int // bytes of the last datagram
	size    int
	part    int // how many of a burst each flow sends
}

// feedBuffer is the receive buffer of all, where the system gives so much.
const feedBuffer = 16 << 20

// NewFeed opens both. The last datagram is shorter, as that of a run may be.
func NewFeed(w Way, l Load, m *Medium) (*Feed, error) {
	f := &Feed{size: l.Size, last: max(1, l.Size-7)}
	if l.Burst == 1 {
		f.last = l.Size
	}
	f.Mail = harness.NewMailbag(l.Burst, l.Size)
	f.payload = make([]byte, (l.Burst-1)*l.Size+f.last)
	err := m.Do(func() (err error) {
		f.socket, err = Open(func() (*Socket, error) { return w.Open(f.Mail, m.To) })
		return err
	})
	if err != nil {
		return nil, err
	}
	SetBuffer(f.socket.Inlet, feedBuffer)
	if err := f.openSenders(l, m); err != nil {
		f.Close()
		return nil, err
	}
	f.Read, f.SetReadDeadline = f.socket.Read, f.socket.SetReadDeadline
	return f, nil
}

func (f *Feed) openSenders(l Load, m *Medium) error {
	cfg := &batchconn.Config{GSO: batchconn.GSOOff}
	if l.Segmented {
		cfg.GSO = batchconn.GSOOn
	}
	msgs := batchconn.AppendSegments(nil, f.socket.Addr, f.payload, l.Size, nil)
	part := (len(msgs) + l.Flows - 1) / l.Flows
	f.part = part
	for range l.Flows {
		u, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(m.From, 0)))
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
		if m.Settle > 0 {
			harness.Pause(m.Settle)
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

// Check opens two feeds of a way, sends bursts that no other is like to both,
// and looks for each datagram at its receiver: complete, once, in the order of
// its flow. lost is how many did not come.
func Check(w Way, l Load, m *Medium, bursts int) (lost int, err error) {
	const tries = 3 // a wire may lose some, but not each time
	for range tries {
		if lost, err = checkOnce(w, l, m, bursts); lost == 0 || err != nil {
			break
		}
	}
	return lost, err
}

func checkOnce(w Way, l Load, m *Medium, bursts int) (lost int, err error) {
	f, err := NewFeed(w, l, m)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	g, err := NewFeed(w, l, m)
	if err != nil {
		return 0, err
	}
	defer g.Close()
	for range bursts {
		f.stamp()
		g.stamp()
		n, err := f.check(func() error { return errors.Join(g.Send(), f.Send()) })
		if lost += n; lost > 0 || err != nil {
			return lost, err
		}
		n, err = g.check(func() error { return nil })
		if lost += n; lost > 0 || err != nil {
			return lost, err
		}
	}
	return 0, nil
}

// check reads what send sends to the feed.
func (f *Feed) check(send func() error) (lost int, err error) {
	b := f.Burst
	b.Send = send
	var times harness.BurstTimes
	n, err := b.Run(&times)
	if err != nil {
		return 0, err
	}
	if lost := len(f.Mail.Buffers) - n; lost > 0 {
		return lost, nil
	}
	return 0, f.compare(n)
}

// compare looks for each datagram that was read among the next of the flows:
// those of a flow keep their order, but merging may put flows in another.
func (f *Feed) compare(n int) error {
	var next []int
	for i := 0; i < n; i += f.part {
		next = append(next, i)
	}
	for i := range n {
		found := false
		for k, at := range next {
			end := min((k+1)*f.part, n)
			if found = at < end && bytes.Equal(f.Mail.Datagram(i), f.datagram(at)); found {
				next[k]++
				break
			}
		}
		if !found {
			return fmt.Errorf("datagram %d of %d: %d bytes that were not sent so, or not next", i+1, n, f.Mail.Lengths[i])
		}
	}
	return nil
}

// Overrun sends bursts to a receiver with a small buffer, that reads once all
// of a burst has arrived, and returns how many datagrams it gets.
func (f *Feed) Overrun(buffer, bursts int) (sent, arrived int, err error) {
	SetBuffer(f.socket.Inlet, buffer)
	defer SetBuffer(f.socket.Inlet, feedBuffer)
	const before = 5 // that do not count: batchconn turns coalescing on when queues are deep
	for i := range before + bursts {
		if err := f.Send(); err != nil {
			return sent, arrived, err
		}
		n, err := f.drain()
		if err != nil {
			return sent, arrived, err
		}
		if i >= before {
			sent += len(f.Mail.Buffers)
			arrived += n
		}
	}
	if arrived > sent {
		err = fmt.Errorf("%d of %d datagrams arrived", arrived, sent)
	}
	return sent, arrived, err
}

// drain reads all that there is.
func (f *Feed) drain() (n int, err error) {
	for f.socket.Waiting() || f.socket.ReadsAhead {
		if err := f.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return n, err
		}
		k, err := f.Read(0)
		n += k
		if errors.Is(err, os.ErrDeadlineExceeded) && !f.socket.Waiting() {
			break
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}
	return n, nil
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
func Fit(l Load, m *Medium) (Load, error) {
	for ; ; l.Burst /= 2 {
		lost, err := Check(Net, l, m, 3)
		if lost == 0 || l.Burst == 1 || err != nil {
			return l, err
		}
	}
}
