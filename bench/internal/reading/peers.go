// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package reading

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/pion/transport/v5/udp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/conn"
	"tailscale.com/net/batching"

	"github.com/batchconn/batchconn/internal/harness"
)

// roomySize is that of buffers for what the kernel has coalesced.
const roomySize = 1<<16 - 1

// roomy gives the mailbag buffers of their own. A read of up to batch datagrams
// may begin at each, so there are more.
func roomy(m *harness.Mailbag, batch int) [][]byte {
	all := make([][]byte, len(m.Buffers)+batch)
	for i := range all {
		all[i] = make([]byte, roomySize)
	}
	copy(m.Buffers, all)
	return all
}

// stuck is when a read that has no deadline is ended.
const stuck = 5 * time.Second

// WireGuard is wireguard-go's standard Bind, which splits what the kernel has
// coalesced.
var WireGuard = Way{"wireguard-go StdNetBind receive", func(m *harness.Mailbag, at netip.Addr) (*Socket, error) {
	bind := conn.NewStdNetBind()
	receive, port, err := bind.Open(0)
	if err != nil {
		return nil, err
	}
	all := roomy(m, conn.IdealBatchSize)
	sizes, endpoints := make([]int, conn.IdealBatchSize), make([]conn.Endpoint, conn.IdealBatchSize)
	limit := time.AfterFunc(stuck, func() { bind.Close() })
	return &Socket{
		Addr: netip.AddrPortFrom(at, port),
		Read: func(i int) (int, error) {
			n, err := receive[0](all[i:i+conn.IdealBatchSize], sizes, endpoints)
			if err != nil {
				return 0, err
			}
			if i+n > len(m.Buffers) {
				return 0, fmt.Errorf("%d datagrams, %d too many", n, i+n-len(m.Buffers))
			}
			copy(m.Lengths[i:], sizes[:n])
			return n, nil
		},
		SetReadDeadline: func(t time.Time) error {
			limit.Stop()
			if !t.IsZero() {
				limit.Reset(stuck)
			}
			return nil
		},
		Close: func() error { limit.Stop(); return bind.Close() },
	}, nil
}}

// Tailscale is the package that tailscale's magicsock reads with.
var Tailscale = Way{"tailscale net/batching ReadBatch", func(m *harness.Mailbag, at netip.Addr) (*Socket, error) {
	u, addr, err := listen(at)
	if err != nil {
		return nil, err
	}
	c, ok := batching.TryUpgradeToConn(u, "udp4", batching.IdealBatchSize, "", nil).(batching.Conn)
	if !ok {
		u.Close()
		return nil, errors.New("it makes no batching.Conn of the socket")
	}
	all := roomy(m, batching.IdealBatchSize)
	ms := make([]ipv6.Message, len(all))
	for i := range ms {
		ms[i].Buffers = all[i : i+1]
		ms[i].OOB = make([]byte, batching.MinControlMessageSize())
	}
	read := func(i int) (int, error) {
		batch := ms[i : i+batching.IdealBatchSize]
		for k := range batch { // as magicsock does
			batch[k].NN, batch[k].N = 0, 0
			batch[k].OOB = batch[k].OOB[:cap(batch[k].OOB)]
		}
		n, err := c.ReadBatch(batch, 0)
		if err != nil {
			return 0, err
		}
		if i+n > len(m.Buffers) {
			return 0, fmt.Errorf("%d datagrams, %d too many", n, i+n-len(m.Buffers))
		}
		for k := range n {
			m.Lengths[i+k] = batch[k].N
		}
		return n, nil
	}
	return &Socket{addr, read, c.SetReadDeadline, c.Close, false}, nil
}}

// QuicGo is what quic-go's oobConn does to the socket, which cannot be called
// from outside: batches of eight, with the control messages that it asks for.
var QuicGo = Way{"quic-go's oobConn (x/net ReadBatch of 8)", func(m *harness.Mailbag, at netip.Addr) (*Socket, error) {
	const (
		batchSize     = 8
		oobBufferSize = 128
		maxPacketSize = 1452
	)
	if len(m.Buffers[0]) > maxPacketSize+1 {
		return nil, ErrSize
	}
	u, addr, err := listen(at)
	if err != nil {
		return nil, err
	}
	if err := setOption(u, unix.IPPROTO_IP, unix.IP_RECVTOS, 1); err != nil {
		u.Close()
		return nil, err
	}
	pc := ipv4.NewPacketConn(u)
	ms := make([]ipv4.Message, batchSize)
	for i := range ms {
		ms[i].Buffers, ms[i].OOB = make([][]byte, 1), make([]byte, oobBufferSize)
	}
	read := func(i int) (int, error) {
		batch := ms[:min(batchSize, len(m.Buffers)-i)]
		for k := range batch {
			batch[k].Buffers[0] = m.Buffers[i+k]
		}
		n, err := pc.ReadBatch(batch, 0)
		for k := range max(n, 0) {
			m.Lengths[i+k] = batch[k].N
			if err := parseTOS(batch[k].OOB[:batch[k].NN]); err != nil {
				return k, err
			}
		}
		return max(n, 0), err
	}
	return &Socket{addr, read, u.SetReadDeadline, u.Close, false}, nil
}}

// parseTOS walks through control messages as quic-go does.
func parseTOS(data []byte) error {
	for len(data) > 0 {
		h, body, rest, err := unix.ParseOneSocketControlMessage(data)
		if err != nil {
			return err
		}
		if h.Level == unix.IPPROTO_IP && h.Type == unix.IP_TOS && len(body) != 1 {
			return errors.New("invalid IPTOS size")
		}
		data = rest
	}
	return nil
}

func setOption(u *net.UDPConn, level, name, value int) error {
	raw, err := u.SyscallConn()
	if err != nil {
		return err
	}
	controlErr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, name, value) })
	return errors.Join(controlErr, err)
}

// Pion is pion/transport's BatchConn.
var Pion = Way{"pion/transport BatchConn.ReadBatch", func(m *harness.Mailbag, at netip.Addr) (*Socket, error) {
	u, addr, err := listen(at)
	if err != nil {
		return nil, err
	}
	c := udp.NewBatchConn(u, 1, time.Hour)
	return &Socket{addr, readBatches(m, c.ReadBatch), u.SetReadDeadline, c.Close, false}, nil
}}
