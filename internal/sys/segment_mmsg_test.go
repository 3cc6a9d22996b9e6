// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux && !android && !batchconn_portable

package sys

import (
	"bytes"
	"encoding/binary"
	"net"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

func TestDamagedRelease(t *testing.T) {
	for release, want := range map[string]bool{
		"7.0.0": true, "7.0.9": true, "7.0.12-1-pve": true, "7.0.0-rc3": true, "7.0": true, "7.1": true, "7.1-rc1": true,
		"7.1.0": true, "7.1.4": true, "7.1.4-arch1-1": true, "7.1.4.fc44.x86_64": true, "7.1.4+": true, "7.1.4_1": true,
		"7.1.5": false, "7.1.5-arch1-1": false, "7.1.5+rpt-rpi-v8": false, "7.1.10": false, "7.1.10_1": false, "7.1.5.fc44": false, "7.2": false, "7.2.0": false, "7.2-rc1": false,
		"6.18.44": false, "6.19.14-300.fc43.x86_64": false, "8.0.0": false, "17.0.0": false, "70.1.2": false, "4.18.0-553.el8": false,
		"": false, "unknown": false, "7": true,
	} {
		if got := damagedRelease(release); (got != "") != want {
			t.Errorf("%q: %q, want damaged %v", release, got, want)
		}
	}
	if r := KernelRelease(); r == "" || strings.Count(r, ".") == 0 {
		t.Errorf("this kernel is %q", r)
	}
}

func TestHeadersCounted(t *testing.T) {
	for release, want := range map[string]int{
		"5.16.0": 0, "5.16.0-rc1": 0, "5.19": 0, "6.1.0-56-cloud-arm64": 0, "10.0": 0,
		"5.15.0-91-generic": 60, "5.4": 60, "4.18.0-553.el8": 60, "": 60, "unknown": 60,
	} {
		if got := headersCountedBy(release); got != want {
			t.Errorf("%q: %d, want %d", release, got, want)
		}
	}
}

// FuzzSegmentable: what is passed on with a segmented message parses as control
// messages that are all harmless, and the two make up what the kernel sees.
func FuzzSegmentable(f *testing.F) {
	tos, ttl := control(unix.SOL_IP, unix.IP_TOS, 8), control(unix.SOL_IPV6, unix.IPV6_HOPLIMIT, 7, 0, 0, 0)
	for i, c := range [][]byte{
		nil, {1, 2, 3}, tos, ttl, append(bytes.Clone(ttl), tos...),
		tos[:unix.CmsgLen(1)],   // without the padding
		tos[:unix.CmsgLen(1)-1], // cut
		append(bytes.Clone(tos), 0),
		control(unix.SOL_IP, unix.IP_TOS),
		control(unix.SOL_UDP, unix.UDP_SEGMENT, 100, 0),
		control(unix.SOL_SOCKET, unix.SO_TIMESTAMPING, 2, 0, 0, 0),
		(&ipv4.ControlMessage{Src: net.IPv4(127, 0, 0, 5)}).Marshal(),
		(&ipv6.ControlMessage{Src: net.IPv6loopback}).Marshal(),
	} {
		f.Add(c, 1200+i)
	}
	huge := bytes.Clone(tos)
	for i := range cmsgWord {
		huge[i] = 0xff // the length
	}
	f.Add(huge, 65535)
	f.Fuzz(func(t *testing.T, control []byte, size int) {
		ms, err := unix.ParseSocketControlMessage(control)
		harmless := err == nil && len(control) <= maxRunControl
		for _, m := range ms {
			harmless = harmless && harmlessControl(int(m.Header.Level), int(m.Header.Type))
		}
		got := Segmentable(control)
		if got && !harmless {
			t.Fatalf("%x is taken for harmless: %v, %v", control, ms, err)
		}
		// The parser is blind to less than a header at the end.
		if harmless && !got && rest(control) == 0 {
			t.Fatalf("%x is not taken for harmless", control)
		}
		if !got {
			return
		}
		all, err := unix.ParseSocketControlMessage(AppendSegmentControl(nil, size, control))
		if err != nil || len(all) != 1+len(ms) {
			t.Fatalf("%x: %d control messages, %v", control, len(all), err)
		}
		if h := all[0]; h.Header.Level != unix.SOL_UDP || h.Header.Type != unix.UDP_SEGMENT || binary.NativeEndian.Uint16(h.Data) != uint16(size) || len(h.Data) != 2 {
			t.Fatalf("first %+v", h)
		}
		for i, m := range ms {
			if a := all[1+i]; a.Header != m.Header || !bytes.Equal(a.Data, m.Data) {
				t.Fatalf("%+v became %+v", m, a)
			}
		}
	})
}

// rest is how many bytes are after the last control message and its padding.
func rest(control []byte) int {
	for len(control) >= unix.SizeofCmsghdr {
		_, _, after, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			break
		}
		control = after
	}
	return len(control)
}

// control is a control message as x/net's Marshal makes it (cmsg(3)).
func control(level, typ int, data ...byte) []byte {
	b, room := AppendControl(nil, level, typ, len(data))
	copy(room, data)
	return b
}

func TestFindSegmentControl(t *testing.T) {
	ttl, _ := AppendControl(nil, unix.SOL_IP, unix.IP_TTL, 4)
	long, _ := AppendControl(nil, unix.SOL_UDP, unix.UDP_SEGMENT, 4) // an int, which the kernel takes for no size
	own := AppendSegmentControl(nil, 1200, nil)
	for _, tt := range []struct {
		control    []byte
		size, from int
	}{
		{nil, 0, 0},
		{ttl, 0, 0},
		{own, 1200, 0},
		{slices.Concat(ttl, own), 1200, len(ttl)},
		{slices.Concat(ttl, own, ttl), 1200, len(ttl)},
		{own[:unix.CmsgLen(2)], 1200, 0}, // without the padding
		{own[:unix.CmsgLen(1)], 0, 0},    // cut short
		{long, 0, 0},
		{[]byte{1, 2, 3}, 0, 0},
		{make([]byte, 40), 0, 0},
	} {
		size, start, end := FindSegmentControl(tt.control)
		want := 0
		if tt.size != 0 {
			want = min(tt.from+len(own), len(tt.control))
		}
		if size != tt.size || start != tt.from || end != want {
			t.Errorf("% x: size %d at [%d:%d], want %d at [%d:%d]", tt.control, size, start, end, tt.size, tt.from, want)
		}
	}
}
