// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/batchconn/batchconn/internal/sys"
	"golang.org/x/sys/unix"
)

// longs are what a C struct of longs holds.
func longs(vs ...int64) (b []byte) {
	for _, v := range vs {
		if unix.SizeofPtr == 4 {
			b = binary.NativeEndian.AppendUint32(b, uint32(v))
		} else {
			b = binary.NativeEndian.AppendUint64(b, uint64(v))
		}
	}
	return b
}

func int64s(vs ...int64) (b []byte) {
	for _, v := range vs {
		b = binary.NativeEndian.AppendUint64(b, uint64(v))
	}
	return b
}

// A said is what messages of each family have said so far.
type said struct{ v4, v6 ControlMessage }

// whole is what they say together: of what both say, IPv4's counts.
func (s said) whole() ControlMessage {
	m := s.v6
	m.Flags |= s.v4.Flags
	if s.v4.Flags&ControlDst != 0 {
		m.Local, m.Dst, m.IfIndex = s.v4.Local, s.v4.Dst, s.v4.IfIndex
	}
	if s.v4.Flags&ControlTOS != 0 {
		m.TOS = s.v4.TOS
	}
	if s.v4.Flags&ControlTTL != 0 {
		m.TTL = s.v4.TTL
	}
	return m
}

// A wording is one way that a kernel tells something, with a value made of v.
type wording struct {
	name string
	make func(s *said, v byte) []byte
}

var wordings = []wording{
	{"IP_TOS, a byte", func(s *said, v byte) []byte {
		s.v4.Flags, s.v4.TOS = s.v4.Flags|ControlTOS, int(v)
		return cmsg(unix.SOL_IP, unix.IP_TOS, v)
	}},
	{"IP_TOS, an int", func(s *said, v byte) []byte {
		s.v4.Flags, s.v4.TOS = s.v4.Flags|ControlTOS, int(v)
		return cmsgInt(unix.SOL_IP, unix.IP_TOS, int(v))
	}},
	{"IPV6_TCLASS", func(s *said, v byte) []byte {
		s.v6.Flags, s.v6.TOS = s.v6.Flags|ControlTOS, int(v)
		return cmsgInt(unix.SOL_IPV6, unix.IPV6_TCLASS, int(v))
	}},
	{"IP_TTL", func(s *said, v byte) []byte {
		s.v4.Flags, s.v4.TTL = s.v4.Flags|ControlTTL, int(v)
		return cmsgInt(unix.SOL_IP, unix.IP_TTL, int(v))
	}},
	{"IPV6_HOPLIMIT", func(s *said, v byte) []byte {
		s.v6.Flags, s.v6.TTL = s.v6.Flags|ControlTTL, int(v)
		return cmsgInt(unix.SOL_IPV6, unix.IPV6_HOPLIMIT, int(v))
	}},
	{"IP_PKTINFO", func(s *said, v byte) []byte {
		m := &s.v4
		m.Flags |= ControlLocal | ControlDst | ControlInterface
		m.Local, m.Dst, m.IfIndex = netip.AddrFrom4([4]byte{10, 0, 0, v}), netip.AddrFrom4([4]byte{239, 0, 0, v}), int(v)+1
		return cmsg(unix.SOL_IP, unix.IP_PKTINFO, append(uint32s(uint32(v)+1), 10, 0, 0, v, 239, 0, 0, v)...)
	}},
	{"IPV6_PKTINFO", func(s *said, v byte) []byte {
		m := &s.v6
		m.Flags |= ControlLocal | ControlDst | ControlInterface
		m.Local = netip.AddrFrom16([16]byte{0x20, 1, 15: v})
		m.Dst, m.IfIndex = m.Local, 1<<20+int(v)
		return cmsg(unix.SOL_IPV6, unix.IPV6_PKTINFO, append(m.Local.AsSlice(), uint32s(uint32(m.IfIndex))...)...)
	}},
	{"IPV6_PKTINFO of a group", func(s *said, v byte) []byte {
		m := &s.v6
		m.Flags = m.Flags&^ControlLocal | ControlDst | ControlInterface
		m.Local, m.Dst, m.IfIndex = netip.Addr{}, netip.AddrFrom16([16]byte{0xff, 1, 15: v}), 7
		return cmsg(unix.SOL_IPV6, unix.IPV6_PKTINFO, append(m.Dst.AsSlice(), uint32s(7)...)...)
	}},
	{"IPV6_PKTINFO of IPv4", func(s *said, v byte) []byte {
		m := &s.v6
		m.Flags |= ControlLocal | ControlDst | ControlInterface
		m.Local = netip.AddrFrom4([4]byte{10, 0, 0, v})
		m.Dst, m.IfIndex = m.Local, 3
		mapped := m.Local.As16()
		return cmsg(unix.SOL_IPV6, unix.IPV6_PKTINFO, append(mapped[:], uint32s(3)...)...)
	}},
	{"SO_TIMESTAMPNS", func(s *said, v byte) []byte {
		s.v6.Flags, s.v6.Time = s.v6.Flags|ControlTime, time.Unix(1e9+int64(v), 999_999_999)
		return cmsg(unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, longs(1e9+int64(v), 999_999_999)...)
	}},
	{"SO_TIMESTAMPNS_NEW, after 2038", func(s *said, v byte) []byte {
		s.v6.Flags, s.v6.Time = s.v6.Flags|ControlTime, time.Unix(1e10+int64(v), 1)
		return cmsg(unix.SOL_SOCKET, unix.SO_TIMESTAMPNS_NEW, int64s(1e10+int64(v), 1)...)
	}},
	{"SO_TIMESTAMP", func(s *said, v byte) []byte {
		s.v6.Flags, s.v6.Time = s.v6.Flags|ControlTime, time.Unix(1e9, 1000*int64(v))
		return cmsg(unix.SOL_SOCKET, unix.SO_TIMESTAMP, longs(1e9, int64(v))...)
	}},
	{"SO_TIMESTAMP_NEW", func(s *said, v byte) []byte {
		s.v6.Flags, s.v6.Time = s.v6.Flags|ControlTime, time.Unix(1e10, 999_999_000)
		return cmsg(unix.SOL_SOCKET, unix.SO_TIMESTAMP_NEW, int64s(1e10, 999_999)...)
	}},
	{"SO_RXQ_OVFL", func(s *said, v byte) []byte {
		s.v6.Flags, s.v6.Dropped = s.v6.Flags|ControlDropped, 1<<31+uint32(v)
		return cmsg(unix.SOL_SOCKET, unix.SO_RXQ_OVFL, uint32s(1<<31+uint32(v))...)
	}},
	{"UDP_GRO", func(s *said, v byte) []byte { return cmsgInt(unix.SOL_UDP, unix.UDP_GRO, int(v)) }},
	{"an unknown level", func(s *said, v byte) []byte { return cmsg(1000+int(v), unix.IP_TOS, 1, 2, 3) }},
	{"an unknown type", func(s *said, v byte) []byte { return cmsg(unix.SOL_IP, 100+int(v), 1) }},
	{"no data", func(s *said, v byte) []byte { return cmsg(unix.SOL_IP, 100) }},
}

// FuzzControlMessages puts messages together as kernels do, in any order and
// any number, and cuts them short anywhere.
func FuzzControlMessages(f *testing.F) {
	every := make([]byte, 0, 2*len(wordings))
	for i := range wordings {
		f.Add([]byte{byte(i), 200}, uint16(1000))
		every = append(every, byte(i), byte(i))
	}
	f.Add(every, uint16(1000))
	backwards := slices.Clone(every)
	slices.Reverse(backwards)
	f.Add(backwards, uint16(300))
	f.Fuzz(func(t *testing.T, script []byte, cut uint16) {
		var s said
		var b []byte
		want := []ControlMessage{{}} // want[i]: what the first i messages say
		ends := []int{0}             // where the first i end; the last needs no padding
		for ; len(script) >= 2 && len(b) < 2000; script = script[2:] {
			one := wordings[int(script[0])%len(wordings)].make(&s, script[1])
			b = append(b, one...)
			want, ends = append(want, s.whole()), append(ends, len(b))
		}
		var m ControlMessage
		if err := m.Parse(b); err != nil || m != want[len(want)-1] {
			t.Fatalf("Parse(%x)\n= %+v, %v\nwant %+v", b, m, err, want[len(want)-1])
		}
		n := min(int(cut), len(b))
		err := m.Parse(b[:n])
		i, whole := slices.BinarySearch(ends, n)
		if !whole { // in message i, which may end with its data here
			_, data, _, first := unix.ParseOneSocketControlMessage(b[ends[i-1]:])
			if whole = first == nil && n-ends[i-1] >= unix.CmsgLen(len(data)); !whole {
				i--
			}
		}
		if m != want[i] || (err == nil) != whole {
			t.Fatalf("Parse(%x), of %d bytes,\n= %+v, %v\nwant %+v, an error is %v", b[:n], len(b), m, err, want[i], !whole)
		}
	})
}

// FuzzControlParse: whatever the bytes, Parse does not panic, and what it says
// can be.
func FuzzControlParse(f *testing.F) {
	for _, data := range [][]byte{
		nil, {1}, make([]byte, 15), make([]byte, 16), make([]byte, 64),
		cmsg(unix.SOL_IP, unix.IP_TOS),                              // no data
		cmsg(unix.SOL_IP, unix.IP_TOS, 1, 2),                        // neither a byte nor an int
		cmsg(unix.SOL_IP, unix.IP_TOS, 1, 2, 3),                     //
		cmsgInt(unix.SOL_IPV6, unix.IPV6_TCLASS, -1),                // no byte
		cmsgInt(unix.SOL_IP, unix.IP_TTL, 256),                      //
		cmsg(unix.SOL_IP, unix.IP_PKTINFO, make([]byte, 11)...),     // cut short by the kernel, MSG_CTRUNC
		cmsg(unix.SOL_IPV6, unix.IPV6_PKTINFO, make([]byte, 19)...), //
		cmsg(unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1, 2, 3),
		cmsg(unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, longs(1)...),
		cmsg(unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, longs(1, 1e9)...),          // no nanoseconds
		cmsg(unix.SOL_SOCKET, unix.SO_TIMESTAMP_NEW, int64s(1, 1e6)...),       // no microseconds
		cmsg(unix.SOL_SOCKET, unix.SO_TIMESTAMPNS_NEW, int64s(1, -1)...),      //
		cmsg(unix.SOL_SOCKET, unix.SO_TIMESTAMPNS_NEW, int64s(1<<63-1, 5)...), // a time that overflows
	} {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		was := slices.Clone(b)
		var m ControlMessage
		err := m.Parse(b)
		if !slices.Equal(b, was) {
			t.Errorf("Parse(%x) wrote to it", was)
		}
		if m.Flags&^allControl != 0 || m.TOS < 0 || m.TOS > 255 || m.TTL < 0 || m.TTL > 255 || m.ECN() != m.TOS%4 ||
			m.Local.IsValid() != (m.Flags&ControlLocal != 0) || m.Dst.IsValid() != (m.Flags&ControlDst != 0) ||
			(m.IfIndex != 0) != (m.Flags&ControlInterface != 0) || m.Local.Is4In6() || m.Dst.Is4In6() {
			t.Errorf("Parse(%x) = %+v, %v", b, m, err)
		}
		if err != nil {
			return
		}
		for len(b)%unix.SizeofPtr != 0 { // the padding that the last may lack
			b = append(b, 0)
		}
		var again ControlMessage
		if err := again.Parse(append(b, cmsg(1234, 5, 6)...)); err != nil || again != m {
			t.Errorf("Parse(%x) = %+v\nwith an unknown message after it %+v, %v", b, m, again, err)
		}
	})
}

// TestControlMalformed: each message that says what cannot be is rejected, and
// what was said before it stays.
func TestControlMalformed(t *testing.T) {
	before := cmsgInt(unix.SOL_IP, unix.IP_TTL, 9)
	for _, bad := range [][]byte{
		{0}, make([]byte, unix.SizeofCmsghdr-1), make([]byte, unix.SizeofCmsghdr),
		cmsg(unix.SOL_IP, unix.IP_TOS),
		cmsg(unix.SOL_IP, unix.IP_TOS, 1, 2),
		cmsg(unix.SOL_IP, unix.IP_TOS, 1, 2, 3),
		cmsgInt(unix.SOL_IPV6, unix.IPV6_TCLASS, -1),
		cmsgInt(unix.SOL_IPV6, unix.IPV6_TCLASS, 1<<24),
		cmsgInt(unix.SOL_IP, unix.IP_TTL, 256),
		cmsg(unix.SOL_IP, unix.IP_PKTINFO, make([]byte, 11)...),
		cmsg(unix.SOL_IPV6, unix.IPV6_PKTINFO, make([]byte, 19)...),
		cmsg(unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1, 2, 3),
		cmsg(unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, longs(1)...),
		cmsg(unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, longs(1, 1e9)...),
		cmsg(unix.SOL_SOCKET, unix.SO_TIMESTAMP, longs(1, 1e6)...),
		cmsg(unix.SOL_SOCKET, unix.SO_TIMESTAMP_NEW, int64s(1)...),
		cmsg(unix.SOL_SOCKET, unix.SO_TIMESTAMPNS_NEW, int64s(1, -1)...),
		cmsgInt(unix.SOL_UDP, unix.UDP_GRO, 1)[:unix.CmsgLen(4)-1],
	} {
		var m ControlMessage
		err := m.Parse(append(slices.Clone(before), bad...))
		if want := (ControlMessage{Flags: ControlTTL, TTL: 9}); err == nil || m != want {
			t.Errorf("Parse(%x) = %+v, %v; want an error, and %+v of what was before", bad, m, err, want)
		}
	}
}

// FuzzControlRoundTrip: what Append writes Parse reads, and so do x/sys and the
// planner, which takes it into a run.
func FuzzControlRoundTrip(f *testing.F) {
	f.Add(uint(allControl), []byte{127, 0, 0, 1}, true, uint32(1), byte(2), byte(64))
	f.Add(uint(allControl), []byte{0x20, 1, 15: 1}, false, uint32(1<<31), byte(255), byte(255))
	f.Add(uint(ControlLocal), []byte{}, false, uint32(0), byte(0), byte(0))
	f.Fuzz(func(t *testing.T, flags uint, addr []byte, toIPv4 bool, index uint32, tos, ttl byte) {
		index &= 1<<31 - 1 // an int of 32 bits
		local, _ := netip.AddrFromSlice(addr[:min(len(addr), 16)])
		to := netip.IPv6Loopback()
		if toIPv4 {
			to = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		sent := ControlMessage{Flags: ControlFlags(flags), Local: local, IfIndex: int(index), TOS: int(tos), TTL: int(ttl)}
		sent.Flags &^= ControlTime
		start := make([]byte, 0, 200)
		b := sent.Append(start, to)
		if len(b) > 0 && &b[0] != &start[:1][0] {
			t.Error("there was room, and Append did not use it")
		}
		var got ControlMessage
		if err := got.Parse(b); err != nil {
			t.Fatalf("%+v\nto %v: %x: %v", sent, to, b, err)
		}
		want := sent.comesBack(to)
		if got != want {
			t.Errorf("%+v\nto %v comes back as\n%+v, want\n%+v", sent, to, got, want)
		}
		if _, err := unix.ParseSocketControlMessage(b); err != nil {
			t.Errorf("x/sys: %v", err)
		}
		if sys.HaveBatchCall && !sys.Segmentable(b) {
			t.Errorf("%x keeps messages from being segmented", b)
		}
	})
}

// comesBack is what is read of what was made to be sent to an address.
func (m ControlMessage) comesBack(to netip.Addr) ControlMessage {
	want := ControlMessage{Flags: m.Flags & (ControlTOS | ControlTTL)}
	if want.Flags&ControlTOS != 0 {
		want.TOS = m.TOS
	}
	if want.Flags&ControlTTL != 0 {
		want.TTL = m.TTL
	}
	if m.Flags&ControlInterface != 0 && m.IfIndex != 0 {
		want.Flags |= ControlInterface
		want.IfIndex = m.IfIndex
	}
	source := m.Local.Unmap()
	if m.Flags&ControlLocal == 0 || source.Is4() != to.Is4() || !source.IsValid() || source.IsUnspecified() {
		return want
	}
	if to.Is4() {
		want.Flags |= ControlLocal
		want.Local = source
		return want
	}
	want.Flags |= ControlDst // the one address of IPV6_PKTINFO is the destination when it is received
	want.Dst = source
	if !source.IsMulticast() {
		want.Flags |= ControlLocal
		want.Local = source
	}
	return want
}
