// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package interop

import (
	"net"
	"runtime"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/batchconn/batchconn"
)

// TestXNetReadFrom: x/net's ReadFrom knows *net.UDPConn by its type. A
// PacketConn made of a Conn can be told the original, and then reads through
// the Conn with control messages.
func TestXNetReadFrom(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("x/net's ReadFrom has no control messages on Windows")
	}
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := batchconn.New(udp, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))

	pc := ipv4.NewPacketConn(conn)
	if err := pc.SetControlMessage(ipv4.FlagDst, true); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	if _, _, _, err := pc.ReadFrom(buf); err == nil || err.(*net.OpError).Timeout() {
		t.Errorf("ReadFrom = %v: x/net takes a Conn by now, so README may say so", err)
	}
	pc.PacketConn = udp
	for _, text := range []string{"one", "two"} {
		if _, err := pc.WriteTo([]byte(text), nil, conn.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		n, cm, from, err := pc.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		if string(buf[:n]) != text || from.String() != conn.LocalAddr().String() || cm == nil || !cm.Dst.Equal(net.IPv4(127, 0, 0, 1)) {
			t.Errorf("%q from %v, %v", buf[:n], from, cm)
		}
	}
}
