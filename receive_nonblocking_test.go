// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
)

// flaggedReads are the reads that take flags. They say how many datagrams they
// got, with room for three where they take more than one.
var flaggedReads = map[string]func(c *Conn, flags int) (int, error){
	"ReceiveMessages": func(c *Conn, flags int) (n int, err error) {
		err = receiveInto(c, nil, 3, flags, func([]byte) { n++ })
		return n, err
	},
	"ReceiveMessage": func(c *Conn, flags int) (int, error) {
		return c.ReceiveMessage(nil, &InputMessage{Vectors: [][]byte{make([]byte, 1)}}, flags)
	},
	"ReceiveFrom": func(c *Conn, flags int) (int, error) {
		n, _, err := c.ReceiveFrom(nil, make([]byte, 1), flags)
		return n, err
	},
	"ReadBatch": func(c *Conn, flags int) (int, error) {
		ms := make([]ipv4.Message, 3)
		for i := range ms {
			ms[i].Buffers = [][]byte{make([]byte, 1)}
		}
		return c.ReadBatch(ms, flags)
	},
}

// TestReceiveNonBlocking: a read that may not wait never does: not where
// nothing is there, not behind another that waits, and not for the rest of what
// MsgWaitAll wants.
func TestReceiveNonBlocking(t *testing.T) {
	for _, cfg := range []Config{{}, {GRO: GROOn}, {GRO: GROOff}, {NonBlocking: true}, {NonBlocking: true, GRO: GROOn}} {
		for name, read := range flaggedReads {
			flags := []int{MsgDontWait, MsgDontWait | MsgWaitAll}
			if name == "ReadBatch" {
				flags = flags[:1] // the other flag is ReceiveMessages'
			} else if cfg.NonBlocking {
				flags = append(flags, 0, MsgWaitAll)
			}
			for _, f := range flags {
				t.Run(fmt.Sprintf("%+v/%s/%#x", cfg, name, f), func(t *testing.T) { testReceiveNonBlocking(t, cfg, read, f) })
			}
		}
	}
}

func testReceiveNonBlocking(t *testing.T, cfg Config, read func(*Conn, int) (int, error), flags int) {
	in, out, to := readPair(t, &cfg)
	nothing := func(what string) {
		t.Helper()
		atOnce(t, what, func() {
			if n, err := read(in, flags); n != 0 || !errors.Is(err, ErrWouldBlock) {
				t.Errorf("%s: %d, %v; want 0, ErrWouldBlock", what, n, err)
			}
		})
	}
	nothing("alone")
	ended := make(chan error, 1)
	go func() { ended <- in.WaitReadable(nil) }()
	awaitReader(t, in)
	nothing("beside one that waits")
	if _, err := out.SendTo(nil, []byte("x"), to, 0); err != nil {
		t.Fatal(err)
	}
	if err := receiveWithin(t, "the one that waits", ended); err != nil {
		t.Fatal(err)
	}
	atOnce(t, "a read of the only datagram", func() {
		if n, err := read(in, flags); n != 1 || err != nil {
			t.Errorf("of the only datagram: %d, %v", n, err)
		}
	})
	nothing("after it")
	in.Close()
	out.Close()
}

// TestReadFamilyWaits: Config.NonBlocking is not for net's Read family,
// ReadBatch and WaitReadable.
func TestReadFamilyWaits(t *testing.T) {
	p := make([]byte, 10)
	reads := map[string]func(c *Conn) error{
		"Read":                func(c *Conn) error { _, err := c.Read(p); return err },
		"ReadFrom":            func(c *Conn) error { _, _, err := c.ReadFrom(p); return err },
		"ReadFromUDP":         func(c *Conn) error { _, _, err := c.ReadFromUDP(p); return err },
		"ReadFromUDPAddrPort": func(c *Conn) error { _, _, err := c.ReadFromUDPAddrPort(p); return err },
		"ReadMsgUDP":          func(c *Conn) error { _, _, _, _, err := c.ReadMsgUDP(p, nil); return err },
		"ReadMsgUDPAddrPort":  func(c *Conn) error { _, _, _, _, err := c.ReadMsgUDPAddrPort(p, nil); return err },
		"ReadBatch":           func(c *Conn) error { _, err := flaggedReads["ReadBatch"](c, 0); return err },
		"WaitReadable":        func(c *Conn) error { return c.WaitReadable(nil) },
	}
	for _, mode := range []GROMode{GROAuto, GROOn, GROOff} {
		for name, read := range reads {
			in, out, to := readPair(t, &Config{NonBlocking: true, GRO: mode})
			ended := make(chan error, 1)
			go func() { ended <- read(in) }()
			for end := time.Now().Add(patience); in.recv.queue.state.Load() != parked && in.recv.net.underWay() == 0 && len(ended) == 0; runtime.Gosched() {
				if time.Now().After(end) {
					t.Fatalf("GRO %v, %s neither waits nor ends", mode, name)
				}
			}
			if _, err := out.SendTo(nil, []byte("x"), to, 0); err != nil {
				t.Fatal(err)
			}
			if err := receiveWithin(t, name, ended); err != nil {
				t.Errorf("GRO %v, %s: %v", mode, name, err)
			}
			in.Close()
			out.Close()
		}
	}
}
