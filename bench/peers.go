// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package main

import (
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/pion/transport/v5/udp"
	"golang.zx2c4.com/wireguard/conn"
	"tailscale.com/net/batching"
	"tailscale.com/net/packet"

	"github.com/batchconn/batchconn/bench/internal/way"
)

// A send is one call of a peer that sends to one destination a call.
type send struct {
	to        netip.AddrPort
	datagrams [][]byte
	together  []byte // the same as one slice; nil if roomy
}

func runsOf(b *way.Batch, limit int, roomy bool) (all []send) {
	for i := 0; i < b.Count; {
		n := b.Run(i, limit)
		s := send{to: b.Destination(i), datagrams: b.Datagrams[i : i+n]}
		if !roomy {
			s.together = b.Together(i, n)
		}
		all = append(all, s)
		i += n
	}
	return all
}

// wireGuard is wireguard-go's standard Bind. Its packets are in buffers of 64
// KiB each, and it takes no more than its device hands it.
var wireGuard = way.Way{Name: "wireguard-go StdNetBind.Send", Roomy: true, Open: func(*way.Load) (*way.Socket, error) {
	bind := conn.NewStdNetBind()
	if _, _, err := bind.Open(0); err != nil {
		return nil, err
	}
	sender := func(b *way.Batch) way.Sender {
		sends := runsOf(b, conn.IdealBatchSize, true)
		endpoints := make([]conn.Endpoint, len(sends))
		for i := range sends {
			endpoints[i] = &conn.StdNetEndpoint{AddrPort: sends[i].to}
		}
		return way.Repeat(b.Count, func() error {
			for i := range sends {
				if err := bind.Send(sends[i].datagrams, endpoints[i]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return &way.Socket{Sender: sender, Close: bind.Close}, nil
}}

// tailscale is the package that tailscale's magicsock sends with.
var tailscale = way.Way{Name: "tailscale net/batching WriteBatchTo", Open: func(*way.Load) (*way.Socket, error) {
	u, err := way.Listen()
	if err != nil {
		return nil, err
	}
	c, ok := batching.TryUpgradeToConn(u, "udp4", batching.IdealBatchSize, "", nil).(batching.Conn)
	if !ok {
		u.Close()
		return nil, fmt.Errorf("it makes no batching.Conn of the socket")
	}
	sender := func(b *way.Batch) way.Sender {
		sends := runsOf(b, batching.IdealBatchSize, false)
		return way.Repeat(b.Count, func() error {
			for i := range sends {
				if err := c.WriteBatchTo(sends[i].datagrams, sends[i].to, packet.GeneveHeader{}, 0); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return &way.Socket{Sender: sender, Close: c.Close}, nil
}}

// quicGo is what quic-go's connection does to the socket, which cannot be
// called from outside: its packets, of one size except the last, are made in
// one buffer, which goes into one WriteMsgUDP. The control message for ECN that
// it adds is left out.
var quicGo = way.Way{Name: "quic-go's segmented write (WriteMsgUDP)", Open: func(*way.Load) (*way.Socket, error) {
	const largeBuffer = 20 << 10 // its MaxLargePacketBufferSize
	u, err := way.Listen()
	if err != nil {
		return nil, err
	}
	sender := func(b *way.Batch) way.Sender {
		sends := runsOf(b, min(max(1, largeBuffer/b.Size), way.MaxSegments(b.Size)), false)
		addrs := make([]*net.UDPAddr, len(sends))
		for i := range sends {
			addrs[i] = net.UDPAddrFromAddrPort(sends[i].to)
		}
		control := way.SegmentControl(b.Size)
		return way.Repeat(b.Count, func() error {
			for i := range sends {
				if _, _, err := u.WriteMsgUDP(sends[i].together, control, addrs[i]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return &way.Socket{Sender: sender, Close: u.Close}, nil
}}

const (
	// pionBatch is the smallest that pion's batches hold: as a Writer, it takes
	// datagrams across its caller's batches.
	pionBatch = 64

	// pionInterval is when it sends a batch that is not full.
	pionInterval = 20 * time.Millisecond
)

// pion is pion/transport's BatchConn, which takes one datagram at a time.
var pion = way.Way{Name: "pion/transport BatchConn", Open: func(l *way.Load) (*way.Socket, error) {
	u, err := way.Listen()
	if err != nil {
		return nil, err
	}
	size := max(pionBatch, l.Count)
	watched := &watchedConn{UDPConn: u, wrote: make(chan struct{}, 1)}
	interval := pionInterval
	if l.Full {
		interval = time.Hour // a batch that is not full would spoil the count of flush
	}
	c := udp.NewBatchConn(watched, size, interval)
	var taken atomic.Int64
	sender := func(b *way.Batch) way.Sender {
		to := make([]net.Addr, b.Count)
		for i := range to {
			to[i] = net.UDPAddrFromAddrPort(b.Destination(i))
		}
		return way.Repeat(b.Count, func() error {
			for i, p := range b.Datagrams {
				if _, err := c.WriteTo(p, to[i]); err != nil {
					return err
				}
			}
			taken.Add(int64(b.Count))
			return nil
		})
	}
	flush := func() error { return watched.waitFor((taken.Load() + int64(size) - 1) / int64(size)) }
	return &way.Socket{Sender: sender, Flush: flush, Close: c.Close}, nil
}}

// A watchedConn tells when it was written to, for what cannot be flushed.
type watchedConn struct {
	*net.UDPConn
	writes atomic.Int64
	wrote  chan struct{}
}

// waitFor waits for that many writes in all.
func (c *watchedConn) waitFor(n int64) error {
	const patience = 5 * time.Second
	for limit := time.After(patience); c.writes.Load() < n; {
		select {
		case <-c.wrote:
		case <-limit:
			return fmt.Errorf("%d of %d batches were not sent within %v", n-c.writes.Load(), n, patience)
		}
	}
	return nil
}

func (c *watchedConn) SyscallConn() (syscall.RawConn, error) {
	raw, err := c.UDPConn.SyscallConn()
	return watchedRawConn{raw, c}, err
}

type watchedRawConn struct {
	syscall.RawConn
	conn *watchedConn
}

func (r watchedRawConn) Write(f func(fd uintptr) bool) error {
	err := r.RawConn.Write(f)
	r.conn.writes.Add(1)
	select {
	case r.conn.wrote <- struct{}{}:
	default:
	}
	return err
}
