// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"errors"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/batchconn/batchconn/internal/sys"
)

// TestHeldMemoryOfMany: what many short datagrams are read ahead into is no
// more than half a MiB either.
func TestHeldMemoryOfMany(t *testing.T) {
	in, _, to := coalescing(t)
	plain := newConn(t, listen(t, "udp4", "127.0.0.1"), &Config{GSO: GSOOff})
	sent, read, maxHeld := 0, 0, 0
	sendRuns(t, plain, to, 60, &sent)
	for read < sent {
		readRuns(t, readNow(in), 1, &read)
		in.recv.mu.Lock()
		held := 0
		for b := in.recv.held; b != nil; b = b.next {
			for i := range b.blocks {
				held += len(b.blocks[i])
			}
		}
		maxHeld = max(maxHeld, held)
		in.recv.mu.Unlock()
	}
	if maxHeld > 512<<10 || maxHeld < blockSize {
		t.Errorf("%d bytes were held", maxHeld)
	}
}

// TestAddressForms: an address has the form that package net and x/net give it,
// that of IPv4 on an IPv6 socket too, whether it was read ahead or not.
func TestAddressForms(t *testing.T) {
	for _, k := range readKinds {
		for _, mode := range []GROMode{GROOff, GROOn} {
			w := k.world(t, &Config{GRO: mode})
			for sender := range w.senders {
				for _, read := range addressReads {
					w.send(t, sender, 1, 100, 0, 0, nil)
					got, err := read(w.conn)
					w.plain.SetReadDeadline(time.Now().Add(patience))
					_, want, wantErr := w.plain.ReadFromUDP(make([]byte, 100))
					if err != nil || wantErr != nil || !reflect.DeepEqual(got, want) {
						t.Errorf("%s, GRO %v, sender %d: %#v, %v; want %#v, %v", k.name, mode, sender, got, err, want, wantErr)
					}
				}
			}
			w.close()
		}
	}
}

var addressReads = []func(c *Conn) (*net.UDPAddr, error){
	func(c *Conn) (*net.UDPAddr, error) { _, a, err := c.ReadFromUDP(make([]byte, 100)); return a, err },
	func(c *Conn) (*net.UDPAddr, error) {
		_, a, err := c.ReadFrom(make([]byte, 100))
		u, _ := a.(*net.UDPAddr)
		return u, err
	},
	func(c *Conn) (*net.UDPAddr, error) {
		ms := []ipv4.Message{{Buffers: [][]byte{make([]byte, 100)}}}
		_, err := c.ReadBatch(ms, 0)
		u, _ := ms[0].Addr.(*net.UDPAddr)
		return u, err
	},
	func(c *Conn) (*net.UDPAddr, error) {
		_, a, err := c.ReadFromUDPAddrPort(make([]byte, 100))
		return formOf(a), err
	},
}

// formOf keeps the form that an address has.
func formOf(a netip.AddrPort) *net.UDPAddr {
	return &net.UDPAddr{IP: a.Addr().AsSlice(), Port: int(a.Port()), Zone: a.Addr().Zone()}
}

// TestWaitAllPending: an error that ends MsgWaitAll after a datagram is the
// next read's, whichever that is, once.
func TestWaitAllPending(t *testing.T) {
	inNamespace(t, func(t *testing.T, _ *loopback) {
		for _, mode := range []GROMode{GROAuto, GROOn, GROOff} {
			for _, call := range readCalls {
				testWaitAllPending(t, mode, call)
			}
		}
	})
}

func testWaitAllPending(t *testing.T, mode GROMode, call readCall) {
	in, peer := connectedPair(t, &Config{GRO: mode})
	if _, err := peer.WriteToUDPAddrPort([]byte("x"), addrPortOf(in)); err != nil {
		t.Fatal(err)
	}
	read := make(chan result, 1)
	go func() {
		msgs := []InputMessage{{Vectors: [][]byte{make([]byte, 10)}}, {Vectors: [][]byte{make([]byte, 10)}}}
		n, err := in.ReceiveMessages(nil, msgs, MsgWaitAll)
		read <- result{n, err}
	}()
	await(t, "the first datagram is read", func() bool { return in.Stats().Received == 1 })
	awaitReader(t, in)
	sendUnreachable(t, in.LocalAddr().(*net.UDPAddr), in.RemoteAddr().(*net.UDPAddr), 3, 0)
	if r := receive(t, "the read", read); r.n != 1 || r.err != nil {
		t.Fatalf("%d, %v; want the one datagram", r.n, r.err)
	}
	in.SetReadDeadline(time.Now().Add(patience)) // if the error is lost
	if got, err := call.call(in, []roomFor{newRoom([]int{10}, 0)}, 0); len(got) != 0 || !errors.Is(err, unix.ECONNREFUSED) {
		t.Fatalf("%v, %s: %v, %v; want ECONNREFUSED", mode, call.name, got, err)
	}
	nothingMore(t, in)
	in.Close()
}

// TestReceiveStats: each datagram is counted once, by whatever way it came, and
// each call to the kernel, and none for what is held.
func TestReceiveStats(t *testing.T) {
	if !sys.HaveBatchCall {
		t.Skip("nothing is coalesced here")
	}
	netOwn := func(c *Conn) func([]byte) (int, error) { return c.Read }
	for _, test := range []struct {
		mode             GROMode
		read             func(c *Conn) func([]byte) (int, error)
		calls, coalesced uint64
	}{
		{GROOff, netOwn, 12, 0},
		{GROOff, readNow, 12, 0},
		{GROOn, netOwn, 4, 12},
		{GROOn, readNow, 4, 12},
	} {
		in, out, to := readPair(t, &Config{GRO: test.mode})
		if test.coalesced > 0 && !(in.Stats().GRO && out.Stats().GSO) {
			continue
		}
		sent, read := 0, 0
		for range 4 { // one by one, so that none is read ahead with another
			sendRuns(t, out, to, 1, &sent)
			for range 3 {
				if err := in.WaitReadable(nil); err != nil {
					t.Fatal(err)
				}
				if _, _, err := in.ReceiveFrom(nil, make([]byte, 10), unix.MSG_PEEK); err != nil {
					t.Fatal(err)
				}
				readRuns(t, test.read(in), 1, &read)
			}
		}
		if test.mode == GROOff {
			test.calls += 12 // the peeks, which are of the kernel's queue
		}
		s := in.Stats()
		if s.Received != 12 || s.ReceivedBytes != 120 || s.ReceiveCalls != test.calls || s.Coalesced != test.coalesced {
			t.Errorf("%+v; want 12, 120, %d, %d", s, test.calls, test.coalesced)
		}
		nothingMore(t, in)
		if s := in.Stats(); s.Received != 12 || s.ReceiveCalls != test.calls+1 {
			t.Errorf("after a read in vain: %+v", s)
		}
	}
}

// TestAskingStaysPlain: a Conn that asks and answers, by any read, never sets
// UDP_GRO.
func TestAskingStaysPlain(t *testing.T) {
	for _, call := range readCalls {
		in, out, to := readPair(t, nil)
		if !in.Stats().GRO {
			t.Skip(in.Stats().GROReason)
		}
		in.SetReadDeadline(time.Now().Add(patience))
		for i := range 300 {
			if _, err := out.SendTo(nil, contents(i, 50), to, 0); err != nil {
				t.Fatal(err)
			}
			got, err := call.call(in, []roomFor{newRoom([]int{100}, 0), newRoom([]int{100}, 0)}, 0)
			if err != nil || len(got) != 1 {
				t.Fatalf("%s: %v, %v", call.name, got, err)
			}
			if in.optionOn() {
				t.Fatalf("%s: UDP_GRO is on after %d answers", call.name, i+1)
			}
		}
		in.Close()
		out.Close()
	}
}

// TestShortAnswersStayPlain: nor does one whose answers are a few datagrams
// each, of which it waits for the first.
func TestShortAnswersStayPlain(t *testing.T) {
	for _, call := range readCalls {
		in, out, to := groAuto(t)
		var read atomic.Int64
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for {
				got, err := call.call(in, []roomFor{newRoom([]int{100}, 0), newRoom([]int{100}, 0)}, 0)
				if err != nil {
					return
				}
				read.Add(int64(len(got)))
			}
		}()
		size := 3
		if call.net { // which looks into the queue now and then: not twice in a row into one of two
			size = 2
		}
		for sent := 0; sent < 300; {
			awaitReader(t, in)
			if err := sendAll(out, nil, AppendSegments(nil, to, make([]byte, size*10), 10, nil)); err != nil {
				t.Fatal(err)
			}
			sent += size
			await(t, "the answer is read", func() bool { return read.Load() == int64(sent) })
			if in.optionOn() {
				t.Fatalf("%s: UDP_GRO is on after %d datagrams", call.name, sent)
			}
		}
		in.Close()
		<-ended
	}
}

// TestReadBatchHoldsNothing: of ReadBatch's messages, and ReceiveMessage's,
// nothing stays in a pooled one.
func TestReadBatchHoldsNothing(t *testing.T) {
	a := newInAdopted(maxPlain)
	ms := slices.Repeat([]ipv4.Message{{Buffers: [][]byte{{1}}, OOB: []byte{2}}}, 10)
	used := len(a.adopt(ms))
	used = max(used, len(a.adopt(ms[:1])))
	a.free(used)
	for i, m := range a.msgs {
		if m.Vectors != nil || m.Control != nil {
			t.Errorf("message %d is still held", i)
		}
	}
}

// TestCloseDropsHeld: a Conn that is closed holds nothing.
func TestCloseDropsHeld(t *testing.T) {
	in, out, to := coalescing(t)
	sent, read := 0, 0
	sendRuns(t, out, to, 1, &sent)
	readRuns(t, readNow(in), 1, &read)
	if !in.recv.hasHeld.Load() {
		t.Fatal("nothing was read ahead")
	}
	in.Close()
	if in.recv.hasHeld.Load() || in.recv.held != nil {
		t.Error("something is held though the Conn is closed")
	}
	for _, call := range readCalls {
		if got, err := call.call(in, []roomFor{newRoom([]int{10}, 0)}, 0); len(got) != 0 || !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: %v, %v; want net.ErrClosed", call.name, got, err)
		}
	}
}

// TestCloseDropsWhatAReadBrings: what a read ahead brings while the Conn is
// being closed is dropped as well, and no read gets it.
func TestCloseDropsWhatAReadBrings(t *testing.T) {
	in, out, to := coalescing(t)
	sent := 0
	sendRuns(t, out, to, 2, &sent)
	in.recv.close() // the first half of Close: a read may still be on its way
	o := in.recv.newReading(0)
	if err := in.recv.obtainNow(o); err != nil {
		t.Fatal(err)
	}
	if in.recv.held == nil {
		t.Fatal("nothing was read ahead")
	}
	in.recv.release(o)
	if in.recv.hasHeld.Load() {
		t.Error("something is held though the Conn is closed")
	}
}
