// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"net"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/batchconn/batchconn/internal/sys"
)

// TestGSOIsTheKernels: segmentation is used if this kernel segments, as a plain
// socket finds out, and not if it ignores the size, as some that only look like
// Linux do (the emulation of s390x by qemu-user). Either way the datagrams
// arrive as they were written.
func TestGSOIsTheKernels(t *testing.T) {
	t.Setenv("BATCHCONN_GSO", "")
	want := kernelSegments(t)
	t.Logf("the kernel segments: %v", want)
	forEachKind(t, 1, &Config{GSO: GSOOn}, func(t *testing.T, w *world) {
		m := w.write(t, 100, inRuns, runSize)
		if n, err := w.conn.SendMessages(nil, m.msgs, 0); n != 100 || err != nil {
			t.Fatalf("SendMessages = %d, %v", n, err)
		}
		w.checkAll(t, m)
		s := w.conn.Stats()
		if s.GSO != want || s.Segmented > 0 != want || s.GSO != (s.GSOReason == "") {
			t.Errorf("%+v, want GSO %v", s, want)
		}
	})
}

// kernelSegments sends three bytes in datagrams of two, without this package.
func kernelSegments(t *testing.T) bool {
	t.Helper()
	if !sys.HaveBatchCall {
		return false
	}
	r, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s, err := net.DialUDP("udp4", nil, r.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	control := cmsg(unix.SOL_UDP, unix.UDP_SEGMENT, uint16s(2)...)
	if _, _, err := s.WriteMsgUDP([]byte("abc"), control, nil); err != nil {
		t.Logf("UDP_SEGMENT: %v", err)
		return false
	}
	var sizes []int
	for total := 0; total < 3; {
		r.SetReadDeadline(time.Now().Add(patience))
		n, err := r.Read(make([]byte, 8))
		if err != nil {
			t.Fatal(err)
		}
		sizes, total = append(sizes, n), total+n
	}
	return slices.Equal(sizes, []int{2, 1})
}
