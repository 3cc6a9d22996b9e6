// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build !android && !batchconn_portable

package batchconn

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A slowRawConn lets a Control begin when the test says so.
type slowRawConn struct {
	syscall.RawConn
	begun, goOn chan struct{}
}

func (r slowRawConn) Control(f func(fd uintptr)) error {
	r.begun <- struct{}{}
	<-r.goOn
	return r.RawConn.Control(f)
}

// TestProbeUnderWay: who has set an option does not go by what was known before
// it, though another sender is already looking at the options.
func TestProbeUnderWay(t *testing.T) {
	w := plainKind.world(t, 1, nil)
	g := &w.conn.send.gso
	if r := g.disabledReason(); r != "" {
		t.Skip(r)
	}
	slow := slowRawConn{g.raw, make(chan struct{}), make(chan struct{})}
	g.raw = slow
	raw, err := w.conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	controlErr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_CORK, 1) })
	if err := errors.Join(controlErr, err); err != nil {
		t.Fatal(err)
	}
	reasons := make(chan string, 2)
	go func() { reasons <- g.disabledReason() }()
	receive(t, "the look at the options", slow.begun)
	go func() { reasons <- g.disabledReason() }()
	select {
	case r := <-reasons:
		t.Fatalf("before the options were looked at, the reason was %q", r)
	case <-time.After(50 * time.Millisecond): // it waits for the look under way; too short a time hides a failure, and makes none
	}
	close(slow.goOn)
	for range 2 {
		if r := receive(t, "the answer", reasons); r == "" {
			t.Error("UDP_CORK was not seen")
		}
	}
}
