// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package interop

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/batchconn/batchconn"
	"github.com/pion/rtp"
)

const (
	rtpReceivers = 500
	rtpFrames    = 6 // in a burst; what a burst brings a receiver fits its buffer
	rtpPackets   = 8 // in a frame
	rtpPayload   = 1000
)

func rtpBursts() int { return scaled(8) }

// A viewer receives the stream. Its socket is none that the runtime polls, or
// each datagram would wake the sender's own process.
type viewer struct {
	receiver
	addr netip.AddrPort
	sum  hash.Hash
}

func newViewers(t *testing.T, e netEnd, n int) []*viewer {
	t.Helper()
	viewers := make([]*viewer, n)
	for i := range viewers {
		r, addr := newReceiver(t, e)
		viewers[i] = &viewer{r, addr, sha256.New()}
	}
	return viewers
}

// drain takes n packets, which have all arrived, and checks that they are the
// next of the stream.
func (v *viewer) drain(n int, buf []byte) error {
	var p rtp.Packet
	for range n {
		size, err := v.receive(buf)
		if err != nil {
			return err
		}
		if err := p.Unmarshal(buf[:size]); err != nil {
			return err
		}
		v.sum.Write(buf[:size])
	}
	return nil
}

// A stream makes the packets of an RTP stream, and their hash.
type stream struct {
	packetizer rtp.Packetizer
	payload    []byte
	sum        hash.Hash
}

func newStream() *stream {
	s := &stream{payload: noise(8, rtpPackets*rtpPayload), sum: sha256.New()}
	s.packetizer = rtp.NewPacketizer(rtpPayload+12, 96, 0xfeedface, rawPayloader{}, rtp.NewFixedSequencer(65_500), 90_000)
	return s
}

// rawPayloader cuts a frame into the payloads of packets.
type rawPayloader struct{}

func (rawPayloader) Payload(mtu uint16, payload []byte) [][]byte {
	return slices.Collect(slices.Chunk(payload, int(mtu)))
}

// frame is the packets of the next frame, marshalled.
func (s *stream) frame(t *testing.T) [][]byte {
	t.Helper()
	packets := s.packetizer.Packetize(s.payload, 3000)
	if len(packets) != rtpPackets {
		t.Fatalf("%d packets in a frame, want %d", len(packets), rtpPackets)
	}
	frame := make([][]byte, len(packets))
	for i, p := range packets {
		b, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		frame[i] = b
		s.sum.Write(b)
	}
	return frame
}

// A fanOut sends each of some packets to each of some addresses.
type fanOut func(packets [][]byte, to []netip.AddrPort) error

// fanOutOf is the way that a kind of connection is meant to be used: SendEach of
// a Conn, one write after the other and Flush of a Writer, else one write after
// the other.
func fanOutOf(t *testing.T, c net.PacketConn) fanOut {
	switch c := c.(type) {
	case interface{ Flush(context.Context) error }:
		return func(packets [][]byte, to []netip.AddrPort) error {
			err := writeAll(c.(addrPortWriter), packets, to)
			if flushErr := c.Flush(context.Background()); flushErr != nil {
				err = errors.Join(err, fmt.Errorf("flush: %w", flushErr))
			}
			return err
		}
	case *batchconn.Conn:
		return sendEach(c)
	case addrPortWriter:
		return func(packets [][]byte, to []netip.AddrPort) error { return writeAll(c, packets, to) }
	}
	t.Fatalf("%T cannot write", c)
	return nil
}

type addrPortWriter interface {
	WriteToUDPAddrPort(b []byte, addr netip.AddrPort) (int, error)
}

// writeAll goes on past an address that is refused.
func writeAll(c addrPortWriter, packets [][]byte, to []netip.AddrPort) error {
	var errs []error
	for _, p := range packets {
		for _, addr := range to {
			if _, err := c.WriteToUDPAddrPort(p, addr); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// sendEach puts the packets of one address side by side, where they can be
// segmented.
func sendEach(c *batchconn.Conn) fanOut {
	var msgs []batchconn.OutputMessage
	return func(packets [][]byte, to []netip.AddrPort) error {
		msgs = msgs[:0]
		for _, addr := range to {
			for i := range packets {
				msgs = append(msgs, batchconn.OutputMessage{Addr: addr, Vectors: packets[i : i+1]})
			}
		}
		n, err := c.SendEach(context.Background(), msgs, 0)
		if n != len(msgs) {
			return fmt.Errorf("SendEach dealt with %d of %d: %w", n, len(msgs), err)
		}
		return err
	}
}

// runRTPPackets and runRTPFrames send one stream to five hundred receivers. The
// time is that of sending alone; the receivers read between the bursts.
func runRTPPackets(t *testing.T, s site) cost { return runFanOut(t, s, 1) }
func runRTPFrames(t *testing.T, s site) cost  { return runFanOut(t, s, rtpPackets) }

func runFanOut(t *testing.T, at site, packets int) (took cost) {
	t.Helper()
	send, viewers := fanOutOf(t, at.open(t, near)), newViewers(t, at.ends[far], rtpReceivers)
	s := newStream()
	var to []netip.AddrPort
	for _, v := range viewers {
		to = append(to, v.addr)
	}
	buf := make([]byte, 2*rtpPayload)
	for range rtpBursts() {
		for range rtpFrames {
			frame := s.frame(t)
			start := begin()
			for part := range slices.Chunk(frame, packets) {
				if err := send(part, to); err != nil {
					t.Fatal(err)
				}
			}
			took = took.add(start.cost())
		}
		for i, v := range viewers {
			if err := v.drain(rtpFrames*rtpPackets, buf); err != nil {
				t.Fatalf("receiver %d: %v", i, err)
			}
		}
	}
	checkViewers(t, viewers, digest(s.sum.Sum(nil)))
	return took
}

type digest = [sha256.Size]byte

// checkViewers compares what each received, all of it and in order, with what
// was sent.
func checkViewers(t *testing.T, viewers []*viewer, want digest) {
	t.Helper()
	for i, v := range viewers {
		if digest(v.sum.Sum(nil)) != want {
			t.Errorf("receiver %d got another stream", i)
		}
		if !v.isEmpty() {
			t.Errorf("receiver %d got a datagram too many", i)
		}
	}
}

// runRTPRefused has receivers that cannot be reached among the others: the
// socket has no such address family, the kernel knows no such port, nobody
// listens. Every failed datagram is reported and the rest of the stream is
// whole.
func runRTPRefused(t *testing.T, at site) cost {
	gone := at.listen(t, far)
	gone.Close()
	refused := []netip.AddrPort{netip.MustParseAddrPort("[::1]:9"), netip.AddrPortFrom(at.ends[far].addr, 0)}
	silent := gone.LocalAddr().(*net.UDPAddr).AddrPort()
	viewers := newViewers(t, at.ends[far], 20)
	reports := reports{}
	send := fanOutOf(t, at.openReporting(t, near, reports.add))
	to := []netip.AddrPort{refused[0], silent}
	for i, v := range viewers {
		if to = append(to, v.addr); i == len(viewers)/2 {
			to = append(to, refused[1])
		}
	}
	s := newStream()
	frame := s.frame(t)
	reports.of(send(frame, to))
	for i, v := range viewers {
		if err := v.drain(len(frame), make([]byte, 2*rtpPayload)); err != nil {
			t.Fatalf("receiver %d: %v", i, err)
		}
	}
	checkViewers(t, viewers, digest(s.sum.Sum(nil)))
	for _, addr := range refused {
		if n := reports.failed[addr]; n != len(frame) {
			t.Errorf("%v: %d failures reported, want %d", addr, n, len(frame))
		}
	}
	if len(reports.failed) != len(refused) {
		t.Errorf("failures reported: %v", reports.failed)
	}
	return cost{}
}

// reports are the failures that a sender heard of, whichever way.
type reports struct {
	mu     sync.Mutex
	failed map[netip.AddrPort]int
}

func (r *reports) add(addr netip.AddrPort, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed == nil {
		r.failed = map[netip.AddrPort]int{}
	}
	r.failed[addr]++
}

// of adds the failures in an error that a send returned. What Flush returns has
// been reported before.
func (r *reports) of(err error) {
	if batch, ok := errors.AsType[*batchconn.BatchError](err); ok {
		for _, m := range batch.Failed {
			r.add(m.Addr, m.Err)
		}
		return
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range joined.Unwrap() {
			r.of(err)
		}
		return
	}
	if op, ok := err.(*net.OpError); ok && op.Addr != nil {
		r.add(netip.MustParseAddrPort(op.Addr.String()), err)
	}
}
