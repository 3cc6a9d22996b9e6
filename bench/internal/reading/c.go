// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package reading

import (
	"errors"
	"net/netip"
	"time"

	"github.com/batchconn/batchconn/bench/internal/cloop"
	"github.com/batchconn/batchconn/internal/harness"
)

// The ways in C, where cloop has its loops, each called once for a batch.
var (
	Recvfrom = inC("C recvfrom", cloop.Recvfrom)
	Recvmmsg = inC("C recvmmsg", cloop.Recvmmsg)
	GRO      = inC("C recvmmsg, UDP_GRO", cloop.GRO)
	GLib     = inC("GLib g_socket_receive_messages", cloop.GLibReceive)
)

// patience is how long a read in C waits before it says that there is nothing.
const patience = 2 * time.Millisecond

func inC(name string, how cloop.Receiving) Way {
	return Way{name, func(m *harness.Mailbag, at netip.Addr) (*Socket, error) {
		u, addr, err := listen(at)
		if err != nil {
			return nil, err
		}
		defer u.Close() // the C side has a duplicate, which no poller knows
		raw, err := u.SyscallConn()
		if err != nil {
			return nil, err
		}
		var r *cloop.Receiver
		controlErr := raw.Control(func(fd uintptr) {
			r, err = cloop.NewReceiver(how, int(fd), len(m.Buffers), len(m.Buffers[0]))
		})
		if err = errors.Join(controlErr, err); err != nil {
			return nil, err
		}
		m.Buffers = r.Buffers
		return &Socket{
			Addr:            addr,
			Read:            func(i int) (int, error) { return r.Read(i, m.Lengths, patience) },
			SetReadDeadline: func(time.Time) error { return nil },
			Close:           r.Close,
		}, nil
	}}
}
