// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"encoding/binary"
	"net"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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
	if !haveBatchCall {
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
	control := binary.NativeEndian.AppendUint16(cmsgBytes(2, unix.SOL_UDP, unix.UDP_SEGMENT), 2)
	control = append(control, make([]byte, unix.CmsgSpace(2)-len(control))...)
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

// cmsgBytes is a struct cmsghdr (cmsg(3)) before size bytes of data.
func cmsgBytes(size, level, typ int) []byte {
	var b []byte
	length := uint64(unix.CmsgLen(size))
	if unix.SizeofCmsghdr == 12 { // size_t has 32 bits
		b = binary.NativeEndian.AppendUint32(b, uint32(length))
	} else {
		b = binary.NativeEndian.AppendUint64(b, length)
	}
	b = binary.NativeEndian.AppendUint32(b, uint32(level))
	return binary.NativeEndian.AppendUint32(b, uint32(typ))
}
