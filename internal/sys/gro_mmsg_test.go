// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux && !android && !batchconn_portable

package sys

import (
	"bytes"
	"encoding/binary"
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzTakeStride: what is left is what was there without the message, whatever
// is around it.
func FuzzTakeStride(f *testing.F) {
	tos, ttl := control(unix.SOL_IP, unix.IP_TOS, 8), control(unix.SOL_IP, unix.IP_TTL, 64, 0, 0, 0)
	f.Add([]byte(nil), []byte(nil), uint16(1200))
	f.Add(tos, ttl, uint16(1))
	f.Add(ttl, []byte(nil), uint16(65535))
	f.Fuzz(func(t *testing.T, before, after []byte, size uint16) {
		for rest := before; len(rest) > 0; {
			level, typ, _, left, ok := NextControl(rest)
			if !ok || level == unix.SOL_UDP && typ == unix.UDP_GRO || len(rest) < unix.CmsgSpace(0) {
				return
			}
			if len(left) == 0 && len(rest)%unix.SizeofPtr != 0 { // without its padding
				return
			}
			rest = left
		}
		gro := control(unix.SOL_UDP, unix.UDP_GRO, binary.NativeEndian.AppendUint32(nil, uint32(size))...)
		stride, left := TakeStride(bytes.Join([][]byte{before, gro, after}, nil))
		if stride != int(size) || !bytes.Equal(left, append(bytes.Clone(before), after...)) {
			t.Fatalf("stride %d, left %x", stride, left)
		}
		if stride, left := TakeStride(bytes.Clone(before)); stride != 0 || !bytes.Equal(left, before) {
			t.Fatalf("none, but stride %d, left %x", stride, left)
		}
		TakeStride(after) // does not panic
	})
}

// TestStrideCut: 16 bytes of room leave a header without data.
func TestStrideCut(t *testing.T) {
	gro := control(unix.SOL_UDP, unix.UDP_GRO)
	if stride, left := TakeStride(gro); stride != 0 || len(left) != 0 {
		t.Errorf("%d, %x", stride, left)
	}
}

// TestPutControl compares with the kernel, for every size of room.
func TestPutControl(t *testing.T) {
	u, err := net.ListenUDP("udp", &net.UDPAddr{})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	raw, err := u.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	out, err := net.Dial("udp4", (&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: u.LocalAddr().(*net.UDPAddr).Port}).String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	receive := func(fd int, room int) ([]byte, bool) {
		out.Write([]byte("x"))
		oob := make([]byte, room)
		var n, flags int
		for err := error(unix.EAGAIN); err == unix.EAGAIN; {
			if _, n, flags, _, err = unix.Recvmsg(fd, make([]byte, 10), oob, unix.MSG_DONTWAIT); err != nil && err != unix.EAGAIN {
				t.Fatal(err)
			}
		}
		return oob[:n], flags&unix.MSG_CTRUNC != 0
	}
	raw.Control(func(fd uintptr) {
		for _, o := range [][2]int{{unix.SOL_IP, unix.IP_RECVTOS}, {unix.SOL_IP, unix.IP_RECVTTL}, {unix.SOL_IP, unix.IP_PKTINFO},
			{unix.SOL_IPV6, unix.IPV6_RECVTCLASS}, {unix.SOL_IPV6, unix.IPV6_RECVPKTINFO}} {
			unix.SetsockoptInt(int(fd), o[0], o[1], 1)
		}
		all, cut := receive(int(fd), 1024)
		if cut || len(all) < 80 { // 88 where a header has 12 bytes
			t.Fatalf("%x", all)
		}
		for room := range len(all) + 20 {
			want, wantCut := receive(int(fd), room)
			got := make([]byte, room)
			n, cut := PutControl(got, all)
			if cut != wantCut || !bytes.Equal(got[:n], want) {
				t.Errorf("room %d: %x, cut %v; want %x, %v", room, got[:n], cut, want, wantCut)
			}
		}
	})
}

// TestNoCoalescingReason: what is too old, and what older kernels mix.
func TestNoCoalescingReason(t *testing.T) {
	u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	raw, err := u.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		check := func(release string, forced bool, want string) {
			t.Helper()
			if got := noCoalescingReason(fd, forced, release); (got == "") != (want == "") || !strings.Contains(got, want) {
				t.Errorf("%s: %q, want %q", release, got, want)
			}
		}
		for _, release := range []string{"4.19.0", "5.0.3", "5.11.22-generic", "", "unknown"} {
			check(release, false, "older than 5.12")
			check(release, true, "older than 5.12")
		}
		for _, release := range []string{"5.12.0", "5.15.0-91-generic", "6.8.0", "6.9.0", "7.0", "10.1"} {
			check(release, false, "")
		}
		for _, option := range []int{unix.IP_RECVTOS, unix.IP_RECVTTL} {
			unix.SetsockoptInt(int(fd), unix.SOL_IP, option, 1)
			check("6.8.12", false, "GROOn overrides")
			check("6.8.12", true, "")
			check("6.9.0", false, "")
			unix.SetsockoptInt(int(fd), unix.SOL_IP, option, 0)
		}
		check("6.8.12", false, "")
		unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_RETOPTS, 1)
		check("6.9.0", true, "IP_RETOPTS")
		unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_RETOPTS, 0)
		SetCoalescing(fd, true)
		check("6.9.0", true, ReasonGROSet)
	})
}
