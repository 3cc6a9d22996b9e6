// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package way

import (
	"errors"
	"net"
	"time"

	"github.com/batchconn/batchconn/bench/internal/cloop"
	"github.com/batchconn/batchconn/internal/harness"
)

// The ways in C, where cloop has its loops. The runs of one are of one vector
// each.
var (
	Sendto           = inC("C sendto", cloop.Sendto)
	Sendmmsg         = inC("C sendmmsg", cloop.Sendmmsg)
	SegmentedVectors = inC("C sendmmsg, UDP_SEGMENT, n vectors", cloop.SegmentedVectors)
	Segmented        = inC("C sendmmsg, UDP_SEGMENT, 1 vector", cloop.Segmented)
	GLib             = inC("GLib g_socket_send_messages", cloop.GLibSend)
)

func inC(name string, how cloop.Sending) Way {
	return Way{Name: name, Open: func(*Load) (*Socket, error) {
		u, err := Listen()
		if err != nil {
			return nil, err
		}
		return &Socket{Sender: func(b *Batch) Sender { return senderInC(how, u, b) }, Close: u.Close}, nil
	}}
}

func senderInC(how cloop.Sending, u *net.UDPConn, b *Batch) Sender {
	return func(d time.Duration) (n int, err error) {
		raw, err := u.SyscallConn()
		if err != nil {
			return 0, err
		}
		j := cloop.Job{
			To: b.To, Payload: b.payload, Count: b.Count, Size: b.Size, Burst: b.Burst,
			Batches: harness.BatchesPerLook(b.Count, d), Time: d,
		}
		controlErr := raw.Control(func(fd uintptr) {
			j.FD = int(fd)
			n, err = cloop.Send(how, &j)
		})
		return n, errors.Join(controlErr, err)
	}
}
