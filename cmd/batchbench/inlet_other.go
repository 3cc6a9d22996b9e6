// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build !unix

package main

import (
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/batchconn/batchconn"
)

// An inlet is a receiving socket.
type inlet struct{ *batchconn.Conn }

func openInlet(at *net.UDPAddr) (*inlet, error) {
	u, err := listenUDP(at)
	if err != nil {
		return nil, err
	}
	c, err := batchconn.New(u, nil)
	if err != nil {
		u.Close()
		return nil, err
	}
	return &inlet{c}, nil
}

// read reads what is there or comes soon, and nothing if there is nothing.
func (in *inlet) read(ms []ipv4.Message) (int, error) {
	in.SetReadDeadline(time.Now().Add(time.Millisecond))
	n, err := in.ReadBatch(ms, 0)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, nil
	}
	return n, err
}
