// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package wgbind

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

func open(t *testing.T) (b *Bind, receive conn.ReceiveFunc, port uint16) {
	t.Helper()
	b = New(nil)
	fns, port, err := b.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	impatient := time.AfterFunc(time.Minute, func() { b.Close() }) // or receiving would have no end
	t.Cleanup(func() {
		impatient.Stop()
		b.Close()
	})
	if len(fns) != 1 || port == 0 {
		t.Fatalf("Open: %d functions, port %d", len(fns), port)
	}
	return b, fns[0], port
}

// collect receives n datagrams, and where the last came from.
func collect(t *testing.T, receive conn.ReceiveFunc, n int) (got [][]byte, from conn.Endpoint) {
	t.Helper()
	bufs := make([][]byte, conn.IdealBatchSize)
	for i := range bufs {
		bufs[i] = make([]byte, 2000)
	}
	sizes, eps := make([]int, len(bufs)), make([]conn.Endpoint, len(bufs))
	for len(got) < n {
		k, err := receive(bufs, sizes, eps)
		if err != nil {
			t.Fatal(err)
		}
		for i := range k {
			got = append(got, bytes.Clone(bufs[i][:sizes[i]]))
			from = eps[i]
		}
	}
	return got, from
}

// TestSendReceive sends full batches over both families and answers the
// endpoint that they came from.
func TestSendReceive(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			if c, err := net.ListenPacket("udp", net.JoinHostPort(host, "0")); err != nil {
				t.Skipf("the system has no %s: %v", host, err)
			} else {
				c.Close()
			}
			a, fromB, _ := open(t)
			b, fromA, port := open(t)
			ep, err := a.ParseEndpoint(net.JoinHostPort(host, strconv.Itoa(int(port))))
			if err != nil {
				t.Fatal(err)
			}
			batch := make([][]byte, conn.IdealBatchSize)
			for i := range batch {
				batch[i] = fmt.Appendf(nil, "%*d", 1+i%7*100, i)
			}
			if err := a.Send(batch, ep); err != nil {
				t.Fatal(err)
			}
			got, from := collect(t, fromA, len(batch))
			for i := range batch {
				if !bytes.Equal(got[i], batch[i]) {
					t.Fatalf("datagram %d: got %q", i, got[i])
				}
			}
			if from.DstIP() != netip.MustParseAddr(host) {
				t.Errorf("came from %v, not from %s", from.DstIP(), host)
			}
			if err := b.Send([][]byte{[]byte("answer")}, from); err != nil {
				t.Fatal(err)
			}
			if got, _ := collect(t, fromB, 1); string(got[0]) != "answer" {
				t.Errorf("answered %q", got[0])
			}
		})
	}
}

// TestSource answers from the address that was spoken to, which on a host with
// several the kernel would not choose.
func TestSource(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has all of 127.0.0.0/8")
	}
	b, receive, port := open(t)
	peer, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	spokenTo := netip.AddrPortFrom(netip.MustParseAddr("127.1.2.3"), port)
	if _, err := peer.WriteToUDPAddrPort([]byte("hello"), spokenTo); err != nil {
		t.Fatal(err)
	}
	_, from := collect(t, receive, 1)
	if from.SrcIP() != spokenTo.Addr() || from.SrcToString() != spokenTo.Addr().String() {
		t.Errorf("SrcIP is %v, want %v", from.SrcIP(), spokenTo.Addr())
	}
	answer := func() netip.AddrPort {
		t.Helper()
		if err := b.Send([][]byte{[]byte("one"), []byte("two")}, from); err != nil {
			t.Fatal(err)
		}
		var source netip.AddrPort
		for range 2 {
			peer.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, source, err = peer.ReadFromUDPAddrPort(make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
		}
		return source
	}
	if source := answer(); source != spokenTo {
		t.Errorf("answered from %v, want %v", source, spokenTo)
	}
	from.ClearSrc()
	if source := answer(); from.SrcIP().IsValid() || source.Addr() != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("after ClearSrc answered from %v", source)
	}
}

// TestClose expects what the device does: receivers end with net.ErrClosed, and
// Open after Close gets the same port.
func TestClose(t *testing.T) {
	b, receive, port := open(t)
	if _, _, err := b.Open(port); !errors.Is(err, conn.ErrBindAlreadyOpen) {
		t.Errorf("second Open: %v", err)
	}
	ended := make(chan error)
	go func() {
		_, err := receive([][]byte{make([]byte, 1)}, make([]int, 1), make([]conn.Endpoint, 1))
		ended <- err
	}()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("receiving while closed: %v", err)
	}
	ep, _ := b.ParseEndpoint("127.0.0.1:9")
	if err := b.Send([][]byte{nil}, ep); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Send after Close: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	_, again, err := b.Open(port)
	if err != nil || again != port {
		t.Errorf("Open after Close: port %d, want %d; %v", again, port, err)
	}
	if err := b.SetMark(0); err != nil {
		t.Errorf("SetMark: %v", err)
	}
	if err := b.Send(nil, &conn.StdNetEndpoint{}); !errors.Is(err, conn.ErrWrongEndpointType) {
		t.Errorf("Send to a foreign endpoint: %v", err)
	}
	if _, err := b.ParseEndpoint("nowhere"); err == nil {
		t.Error("ParseEndpoint(nowhere) succeeds")
	}
}
