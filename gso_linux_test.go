// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux && !android && !batchconn_portable

package batchconn

import (
	"bytes"
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/batchconn/batchconn/internal/sys"
)

// An arrival is a datagram as a receiver sees it.
type arrival struct {
	p       string
	from    netip.Addr
	headers string // what the control data says of TOS, TTL and where it came in
}

func (a arrival) String() string {
	return fmt.Sprintf("%s from %v: %s", brief([]byte(a.p)), a.from, a.headers)
}

// observe makes in tell the headers of what it receives.
func observe(t *testing.T, in *inbox) {
	t.Helper()
	control(t, in.conn, func(fd int) error {
		if in.addr.Addr().Is4() {
			unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_RECVTOS, 1)
			unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_RECVTTL, 1)
			return unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_PKTINFO, 1)
		}
		unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVTCLASS, 1)
		unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVHOPLIMIT, 1)
		return unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1)
	})
}

// observed reads n datagrams and makes sure that there are no more.
func (in *inbox) observed(t *testing.T, n int) []arrival {
	t.Helper()
	as := make([]arrival, n)
	p, oob := make([]byte, 1<<16), make([]byte, 512)
	for i := range as {
		in.conn.SetReadDeadline(time.Now().Add(patience))
		pn, on, _, from, err := in.conn.ReadMsgUDPAddrPort(p, oob)
		if err != nil {
			t.Fatalf("%v: datagram %d of %d: %v", in.addr, i, n, err)
		}
		as[i] = arrival{string(p[:pn]), from.Addr(), headersOf(t, oob[:on])}
	}
	in.expect(t, nil)
	return as
}

func headersOf(t *testing.T, oob []byte) string {
	t.Helper()
	ms, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		t.Fatal(err)
	}
	var s strings.Builder
	for _, m := range ms {
		fmt.Fprintf(&s, "%d/%d=%x ", m.Header.Level, m.Header.Type, m.Data)
	}
	return s.String()
}

// A row is a case of sending that segmentation must not change.
type row struct {
	name string
	only func(k kind) bool  // of which kinds of sockets; nil: all
	set  func(fd int) error // options of the socket before New
	cfg  Config
	send func(w *world) sending
	cork int // so many messages become one datagram
	cut  int // segments of this size that the user makes of each message

	segmented string // "all", "some", "none"
	reason    string // part of GSOReason
}

// A sending is calls of SendMessages in turn.
type sending []call

type call struct {
	msgs  []OutputMessage
	flags int
	do    func(fd int) error // after the call, through SyscallConn
}

// to makes messages of the sizes to inbox i, of contents of their own.
func (w *world) messages(i int, control []byte, sizes ...int) []OutputMessage {
	msgs := make([]OutputMessage, len(sizes))
	for j, n := range sizes {
		msgs[j] = OutputMessage{Addr: w.dest[i], Vectors: cut(contents(100*i+j, n), j%3), Control: control, BytesSent: untouched}
	}
	return msgs
}

var runSizes = append(slices.Repeat([]int{100}, 12), 40)

// runs is a run to each inbox, with the control messages that controls gives
// for an inbox's family.
func runs(controls func(v6 bool) []byte) func(w *world) sending {
	return func(w *world) sending {
		var msgs []OutputMessage
		for i, in := range w.inboxes {
			var control []byte
			if controls != nil {
				control = controls(in.addr.Addr().Is6())
			}
			msgs = append(msgs, w.messages(i, control, runSizes...)...)
		}
		return sending{{msgs: msgs}}
	}
}

func hasIPv4(k kind) bool { return k.name != "udp6" && k.name != "udp6-connected" }
func hasIPv6(k kind) bool { return k.v6 }

func family(v4, v6 []byte) func(bool) []byte {
	return func(isIPv6 bool) []byte {
		if isIPv6 {
			return v6
		}
		return v4
	}
}

func always(control []byte) func(bool) []byte { return family(control, control) }

var (
	tos     = family(cmsgInt(unix.SOL_IP, unix.IP_TOS, 0x28), cmsgInt(unix.SOL_IPV6, unix.IPV6_TCLASS, 0x28))
	tos2    = family(cmsgInt(unix.SOL_IP, unix.IP_TOS, 0x48), cmsgInt(unix.SOL_IPV6, unix.IPV6_TCLASS, 0x48))
	ttl     = family(cmsgInt(unix.SOL_IP, unix.IP_TTL, 7), cmsgInt(unix.SOL_IPV6, unix.IPV6_HOPLIMIT, 7))
	padding = make([]byte, 8) // an extension header of padding alone (RFC 8200, 4.2)
)

// pktinfo has the datagram sent from another address, if there is one.
func pktinfo(v6 bool) []byte {
	if v6 {
		return (&ipv6.ControlMessage{Src: near.addr("::1").AsSlice()}).Marshal()
	}
	return (&ipv4.ControlMessage{Src: near.addr("127.0.0.5").AsSlice()}).Marshal()
}

func both(a, b func(bool) []byte) func(bool) []byte {
	return func(v6 bool) []byte { return slices.Concat(a(v6), b(v6)) }
}

// unpadded is the control message without the bytes that align what follows.
func unpadded(v6 bool) []byte {
	if v6 {
		return tos(true)[:unix.CmsgLen(4)]
	}
	return cmsg(unix.SOL_IP, unix.IP_TOS, 0x28)[:unix.CmsgLen(1)]
}

// optionRows are the socket options with which segmentation is off.
var optionRows = []row{
	{name: "UDP_SEGMENT", cut: 50, set: option(unix.SOL_UDP, unix.UDP_SEGMENT, 50), reason: "UDP_SEGMENT"},
	{name: "IP_RECVERR", only: hasIPv4, set: option(unix.SOL_IP, unix.IP_RECVERR, 1), reason: "IP_RECVERR"},
	{name: "IPV6_RECVERR", only: hasIPv6, set: option(unix.SOL_IPV6, unix.IPV6_RECVERR, 1), reason: "IPV6_RECVERR"},
	{name: "TX timestamps", set: option(unix.SOL_SOCKET, unix.SO_TIMESTAMPING, unix.SOF_TIMESTAMPING_TX_SOFTWARE|unix.SOF_TIMESTAMPING_SOFTWARE), reason: "SO_TIMESTAMPING"},
	{name: "TX timestamps of the queue", set: option(unix.SOL_SOCKET, unix.SO_TIMESTAMPING, unix.SOF_TIMESTAMPING_TX_SCHED|unix.SOF_TIMESTAMPING_SOFTWARE), reason: "SO_TIMESTAMPING"},
	{name: "SO_ZEROCOPY", set: option(unix.SOL_SOCKET, unix.SO_ZEROCOPY, 1), reason: "SO_ZEROCOPY"},
	{name: "SO_WIFI_STATUS", set: option(unix.SOL_SOCKET, unix.SO_WIFI_STATUS, 1), reason: "SO_WIFI_STATUS"},
	{name: "SO_MAX_PACING_RATE", set: option(unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, 125_999), reason: "SO_MAX_PACING_RATE"},
	{name: "SO_TXTIME", set: optionBytes(unix.SOL_SOCKET, unix.SO_TXTIME, uint32s(unix.CLOCK_MONOTONIC, 0)...), reason: "SO_TXTIME"},
	{name: "IP_OPTIONS", only: hasIPv4, set: optionBytes(unix.SOL_IP, unix.IP_OPTIONS, 1, 1, 1, 1), reason: "IP_OPTIONS"},
	{name: "IPV6_HOPOPTS", only: hasIPv6, set: optionBytes(unix.SOL_IPV6, unix.IPV6_HOPOPTS, padding...), reason: "IPV6_HOPOPTS"},
	{name: "IPV6_DSTOPTS", only: hasIPv6, set: optionBytes(unix.SOL_IPV6, unix.IPV6_DSTOPTS, padding...), reason: "IPV6_DSTOPTS"},
	{name: "IPV6_RTHDRDSTOPTS", only: hasIPv6, set: optionBytes(unix.SOL_IPV6, unix.IPV6_RTHDRDSTOPTS, padding...), reason: "IPV6_RTHDRDSTOPTS"},
}

var rows = append([]row{
	{name: "a run", segmented: "all"},
	{name: "empty messages inside", segmented: "some", send: func(w *world) sending {
		return sending{{msgs: w.messages(0, nil, 100, 100, 0, 100, 100, 0, 0, 50, 50, 0)}, {msgs: w.messages(0, nil, 0, 0, 100, 100, 30, 0)}}
	}},
	{name: "longer and shorter ones", segmented: "some", send: func(w *world) sending {
		return sending{{msgs: w.messages(0, nil, 9, 9, 10, 10, 8, 8, 9, 1, 1, 1, 1, 1, 1000, 999, 998)}}
	}},
	{name: "MSG_MORE", segmented: "none", reason: "MSG_MORE", cork: len(runSizes) + 1, send: func(w *world) sending {
		return sending{{msgs: w.messages(0, nil, runSizes...), flags: unix.MSG_MORE}, {msgs: w.messages(0, nil, 10)}}
	}},
	{name: "a run after MSG_MORE", segmented: "none", reason: "MSG_MORE", cork: 3, send: func(w *world) sending {
		run := w.messages(0, nil, runSizes...)
		return sending{{msgs: run[:2:2], flags: unix.MSG_MORE}, {msgs: run}, {msgs: w.messages(0, nil, runSizes...)}}
	}},
	{name: "UDP_CORK", segmented: "none", cork: len(runSizes), reason: "UDP_CORK", set: option(unix.SOL_UDP, unix.UDP_CORK, 1), send: func(w *world) sending {
		return sending{{msgs: w.messages(0, nil, runSizes...), do: option(unix.SOL_UDP, unix.UDP_CORK, 0)}}
	}},
	{name: "the user's UDP_SEGMENT", segmented: "none", cut: 50, send: runs(always(cmsg(unix.SOL_UDP, unix.UDP_SEGMENT, uint16s(50)...)))},
	{name: "equal TOS", segmented: "all", send: runs(tos)},
	{name: "equal TTL", segmented: "all", send: runs(ttl)},
	{name: "equal PKTINFO", segmented: "all", send: runs(pktinfo)},
	{name: "equal TOS, TTL and PKTINFO", segmented: "all", send: runs(both(tos, both(ttl, pktinfo)))},
	{name: "equal PRIORITY", send: runs(always(cmsgInt(unix.SOL_SOCKET, unix.SO_PRIORITY, 3)))}, // if the kernel knows it
	{name: "equal MARK", send: runs(always(cmsgInt(unix.SOL_SOCKET, unix.SO_MARK, 3)))},         // if the user may
	{name: "odd-sized", segmented: "all", send: runs(unpadded)},
	{name: "TTL, then odd-sized", segmented: "all", send: runs(both(ttl, unpadded))},
	{name: "bytes after the last", segmented: "none", send: runs(both(tos, always([]byte{1, 2, 3})))},
	{name: "TX timestamps by control message", segmented: "none", send: runs(always(cmsgInt(unix.SOL_SOCKET, unix.SO_TIMESTAMPING, unix.SOF_TIMESTAMPING_TX_SOFTWARE)))},
	{name: "control messages in turn", segmented: "none", send: func(w *world) sending {
		msgs := w.messages(0, tos(w.isV6(0)), runSizes[:12]...)
		for i := range msgs {
			if i%2 == 0 {
				msgs[i].Control = tos2(w.isV6(0))
			}
		}
		return sending{{msgs: msgs}}
	}},
	{name: "control messages that change", segmented: "all", send: func(w *world) sending {
		v6 := w.isV6(0)
		return sending{{msgs: slices.Concat(w.messages(0, tos(v6), 50, 50, 50), w.messages(0, tos2(v6), 50, 50), w.messages(0, nil, 50, 50), w.messages(0, ttl(v6), 50, 50, 50))}}
	}},
	{name: "no room for control messages", segmented: "none", send: runs(func(v6 bool) []byte { return bytes.Repeat(tos(v6), 20) })},
	{name: "RX timestamps", segmented: "all", set: option(unix.SOL_SOCKET, unix.SO_TIMESTAMPING, unix.SOF_TIMESTAMPING_RX_SOFTWARE|unix.SOF_TIMESTAMPING_SOFTWARE)},
	{name: "SO_TIMESTAMPNS", segmented: "all", set: option(unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)},
	{name: "TOS and TTL of the socket", only: hasIPv4, segmented: "all", set: func(fd int) error {
		return cmp.Or(unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TOS, 0x28), unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TTL, 9))
	}},
	{name: "GSOOff", cfg: Config{GSO: GSOOff}, segmented: "none", reason: "GSOOff"},
	{name: "GSOOn", cfg: Config{GSO: GSOOn}, segmented: "all"},
	{name: "MaxSegments 1", cfg: Config{MaxSegments: 1}, segmented: "none", reason: "MaxSegments"},
	{name: "MaxSegments 2", cfg: Config{MaxSegments: 2}, segmented: "some"},
	{name: "DontFragment over IPv4", only: func(k kind) bool { return !k.v6 }, cfg: Config{DontFragment: true}, segmented: "all"},
	{name: "DontFragment over IPv6", only: hasIPv6, cfg: Config{DontFragment: true}, segmented: "some"}, // without the shorter last
	{name: "paced", segmented: "some", set: option(unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, 500_000)},
	{name: "NonBlocking", cfg: Config{NonBlocking: true}, segmented: "all"},
}, optionRows...)

func (w *world) isV6(i int) bool { return w.inboxes[i].addr.Addr().Is6() }

func init() {
	conformance = append(conformance, conformanceTest{"SegmentationChangesNothing", TestSegmentationChangesNothing})
}

// TestSegmentationChangesNothing sends each row with and without, and compares
// all that the sender is told and all that arrives.
func TestSegmentationChangesNothing(t *testing.T) {
	for _, r := range rows {
		if r.reason != "" && r.segmented == "" {
			r.segmented = "none"
		}
		if r.send == nil {
			r.send = runs(nil)
		}
		for _, k := range kinds {
			if r.only != nil && !r.only(k) {
				continue
			}
			t.Run(r.name+"/"+k.name, func(t *testing.T) { r.compare(t, k) })
		}
	}
}

func (r *row) compare(t *testing.T, k kind) {
	off := r.cfg
	off.GSO = GSOOff
	want, _ := r.run(t, k, &off)
	got, stats := r.run(t, k, &r.cfg)
	if !slices.Equal(got.told, want.told) {
		t.Errorf("the calls ended\n%q, plainly\n%q", got.told, want.told)
	}
	for i := range want.arrived {
		if !slices.Equal(got.arrived[i], want.arrived[i]) {
			t.Errorf("inbox %d got\n%v\nplainly\n%v", i, got.arrived[i], want.arrived[i])
		}
	}
	some := stats.Segmented > 0
	all := stats.Segmented == stats.Messages
	if r.segmented == "all" && !all || r.segmented == "some" && !(some && !all) || r.segmented == "none" && some {
		t.Errorf("segmented %d of %d, want %s", stats.Segmented, stats.Messages, r.segmented)
	}
	if stats.Fallbacks != 0 && r.segmented != "" {
		t.Errorf("%d were refused", stats.Fallbacks)
	}
	if stats.GSO != (r.reason == "") || !strings.Contains(stats.GSOReason, r.reason) {
		t.Errorf("GSO %v: %q, want %q", stats.GSO, stats.GSOReason, r.reason)
	}
}

// A receipt is what the sender is told and what arrives at each inbox.
type receipt struct {
	told    []string
	arrived [][]arrival
}

func (r *row) run(t *testing.T, k kind, cfg *Config) (res receipt, stats Stats) {
	t.Helper()
	w := k.world(t, 3, cfg)
	if r.set != nil {
		if err := controlErr(w.bare, r.set); err != nil {
			t.Skipf("setsockopt: %v", err)
		}
		var err error
		if w.conn, err = New(w.bare, cfg); err != nil {
			t.Fatal(err)
		}
	}
	counts := make([]int, len(w.inboxes))
	for _, in := range w.inboxes {
		observe(t, in)
	}
	stats = Stats{GSO: true}
	for i, c := range r.send(w) {
		n, err := w.conn.SendMessages(nil, c.msgs, c.flags)
		s := stepOf(n, err)
		for i, m := range c.msgs {
			s += fmt.Sprintf(" %d", m.BytesSent)
			if i < n {
				counts[slices.Index(w.dest, m.Addr)] += r.datagrams(m.payload())
			}
		}
		res.told = append(res.told, s)
		if i == 0 {
			stats = w.conn.Stats()
		}
		if c.do != nil {
			control(t, w.conn, c.do)
		}
	}
	first := stats
	stats = w.conn.Stats()
	stats.GSO, stats.GSOReason = first.GSO, first.GSOReason
	for i, in := range w.inboxes {
		n := counts[i]
		if n > 0 && r.cork > 0 {
			n -= r.cork - 1
		}
		res.arrived = append(res.arrived, in.observed(t, n))
	}
	return res, stats
}

// datagrams is how many arrive of a message.
func (r *row) datagrams(size int) int {
	if r.cut == 0 {
		return 1
	}
	return (size + r.cut - 1) / r.cut
}

// TestOptionsAfterNew: an option set through SyscallConn, as libraries do,
// turns segmentation off before the next send, and on again when it is unset.
func TestOptionsAfterNew(t *testing.T) {
	unset := map[string]func(fd int) error{
		"SO_TXTIME":         nil, // cannot be
		"IP_OPTIONS":        optionBytes(unix.SOL_IP, unix.IP_OPTIONS),
		"IPV6_HOPOPTS":      optionBytes(unix.SOL_IPV6, unix.IPV6_HOPOPTS),
		"IPV6_DSTOPTS":      optionBytes(unix.SOL_IPV6, unix.IPV6_DSTOPTS),
		"IPV6_RTHDRDSTOPTS": optionBytes(unix.SOL_IPV6, unix.IPV6_RTHDRDSTOPTS),
		"UDP_SEGMENT":       option(unix.SOL_UDP, unix.UDP_SEGMENT, 0),
		"IP_RECVERR":        option(unix.SOL_IP, unix.IP_RECVERR, 0),
		"IPV6_RECVERR":      option(unix.SOL_IPV6, unix.IPV6_RECVERR, 0),
		"SO_TIMESTAMPING":   option(unix.SOL_SOCKET, unix.SO_TIMESTAMPING, 0),
		"SO_ZEROCOPY":       option(unix.SOL_SOCKET, unix.SO_ZEROCOPY, 0),
		"SO_WIFI_STATUS":    option(unix.SOL_SOCKET, unix.SO_WIFI_STATUS, 0),

		"SO_MAX_PACING_RATE": option(unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, -1),
	}
	for _, r := range optionRows {
		for _, k := range kinds {
			if r.only != nil && !r.only(k) {
				continue
			}
			t.Run(r.name+"/"+k.name, func(t *testing.T) {
				w := k.world(t, 1, nil)
				send := func(what string, set func(fd int) error, segmented bool) {
					t.Helper()
					if err := controlErr(w.conn, set); err != nil {
						t.Skipf("setsockopt: %v", err)
					}
					msgs := w.messages(0, nil, 50, 50, 50) // one segment of 50 each for UDP_SEGMENT
					before := w.conn.Stats()
					if n, err := w.conn.SendMessages(nil, msgs, 0); n != 3 || err != nil {
						t.Fatalf("%s: %d, %v", what, n, err)
					}
					w.inboxes[0].observed(t, 3)
					after := w.conn.Stats()
					if got := after.Segmented - before.Segmented; (got == 3) != segmented || after.GSO != segmented {
						t.Errorf("%s: %d segmented, GSO %v, %q", what, got, after.GSO, after.GSOReason)
					}
					if !segmented && !strings.Contains(after.GSOReason, r.reason) {
						t.Errorf("%s: off because of %q", what, after.GSOReason)
					}
				}
				send("before", func(int) error { return nil }, true)
				send("set", r.set, false)
				if unset[r.reason] != nil {
					send("unset", unset[r.reason], true)
				}
			})
		}
	}
}

// TestRoutingHeader: one is not sent here, since few hosts take it.
func TestRoutingHeader(t *testing.T) {
	segmentRouting := append([]byte{0, 2, 4, 0, 0, 0, 0, 0}, net.IPv6loopback...)
	for _, k := range kinds {
		if !hasIPv6(k) {
			continue
		}
		w := k.world(t, 1, nil)
		if err := controlErr(w.conn, optionBytes(unix.SOL_IPV6, unix.IPV6_RTHDR, segmentRouting...)); err != nil {
			t.Skipf("setsockopt: %v", err)
		}
		if s := w.conn.Stats(); s.GSO || !strings.Contains(s.GSOReason, "IPV6_RTHDR is") {
			t.Errorf("%s: GSO %v, %q", k.name, s.GSO, s.GSOReason)
		}
		control(t, w.conn, optionBytes(unix.SOL_IPV6, unix.IPV6_RTHDR))
		if s := w.conn.Stats(); !s.GSO {
			t.Errorf("%s, unset: %q", k.name, s.GSOReason)
		}
	}
}

// TestSegmentFlags: with flags whose effect on a segmented message is not known
// there is none.
func TestSegmentFlags(t *testing.T) {
	forEachKind(t, 1, nil, func(t *testing.T, w *world) {
		for _, test := range []struct {
			flags int
			want  uint64
		}{
			{0, 3}, {unix.MSG_DONTWAIT, 3}, {unix.MSG_NOSIGNAL, 3}, {unix.MSG_CONFIRM, 3}, {unix.MSG_DONTROUTE, 3},
			{unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL | unix.MSG_CONFIRM | unix.MSG_DONTROUTE, 3},
			{unix.MSG_EOR, 0}, {unix.MSG_ZEROCOPY, 0}, {unix.MSG_FASTOPEN, 0}, {0, 3},
		} {
			before := w.conn.Stats().Segmented
			msgs := w.messages(0, nil, 20, 20, 20)
			if n, err := w.conn.SendMessages(nil, msgs, test.flags); n != 3 || err != nil {
				t.Fatalf("flags %#x: %d, %v", test.flags, n, err)
			}
			w.inboxes[0].observed(t, 3)
			if got := w.conn.Stats().Segmented - before; got != test.want {
				t.Errorf("flags %#x: %d segmented, want %d", test.flags, got, test.want)
			}
		}
	})
}

// TestMaxSegments: no more datagrams in a kernel message than that, as a
// receiver that takes messages whole can see.
func TestMaxSegments(t *testing.T) {
	const size = 100
	for _, k := range kinds {
		for _, limit := range []int{0, 1, 2, 3, 10, 64, 65, 1000} {
			t.Run(fmt.Sprintf("%s/%d", k.name, limit), func(t *testing.T) {
				w := k.world(t, 1, &Config{MaxSegments: limit})
				control(t, w.inboxes[0].conn, option(unix.SOL_UDP, unix.UDP_GRO, 1))
				sizes := slices.Repeat([]int{size}, 100)
				if n, err := w.conn.SendMessages(nil, w.messages(0, nil, sizes...), 0); n != 100 || err != nil {
					t.Fatal(n, err)
				}
				want := limit
				if limit == 0 || limit > 64 {
					want = 64
				}
				if want == 64 && sys.CountedHeaders > 0 {
					want = 63 // 64 is for a shorter last one
				}
				bursts := w.inboxes[0].bursts(t, 100*size)
				if got := slices.Max(bursts); got != want*size {
					t.Errorf("bursts of %d bytes, want no more than %d of %d", bursts, want, size)
				}
				s := w.conn.Stats()
				segmented := uint64(100)
				if 100%want == 1 || want == 1 {
					segmented = 100 / uint64(want) * uint64(want) * uint64(min(1, want-1))
				}
				if s.Calls != 1 || s.Segmented != segmented || s.Fallbacks != 0 {
					t.Errorf("%+v, want 1 call, %d segmented", s, segmented)
				}
			})
		}
	}
}

// TestPacing: what leaves at once is a millisecond of the rate that the socket
// is paced to, headers included, since pacing is by kernel message.
func TestPacing(t *testing.T) {
	const size = 100
	for _, k := range kinds {
		w := k.world(t, 1, nil)
		control(t, w.inboxes[0].conn, option(unix.SOL_UDP, unix.UDP_GRO, 1))
		for rate, want := range map[int]int{
			10 * (size + 62) * 1000: 10, 10*(size+62)*1000 - 1: 9, 2 * (size + 62) * 1000: 2,
			2*(size+62)*1000 - 1: 1, 1000: 1, 1: 1, 1 << 30: 50, -1: 50,
		} {
			control(t, w.conn, option(unix.SOL_SOCKET, unix.SO_MAX_PACING_RATE, rate))
			if n, err := w.conn.SendMessages(nil, w.messages(0, nil, slices.Repeat([]int{size}, 50)...), 0); n != 50 || err != nil {
				t.Fatal(n, err)
			}
			if got := slices.Max(w.inboxes[0].bursts(t, 50*size)); got != want*size {
				t.Errorf("%s, %d bytes a second: %d bytes at once, want %d of %d", k.name, rate, got, want, size)
			}
		}
	}
}

// TestMoreIsForGood: once MSG_MORE was used nothing is segmented any more,
// whatever options are set, and however long it is ago.
func TestMoreIsForGood(t *testing.T) {
	w := kinds[0].world(t, 1, nil)
	if n, err := w.conn.SendMessages(nil, w.messages(0, nil, 10), unix.MSG_MORE); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	w.conn.SendMessages(nil, w.messages(0, nil, 10), 0) // which ends the datagram
	for _, later := range []func(){
		func() {},
		func() { control(t, w.conn, func(int) error { return nil }) },
		func() { w.conn.send.gso.age(1000 * time.Hour) },
	} {
		later()
		if n, err := w.conn.SendMessages(nil, w.messages(0, nil, 10, 10, 10), 0); n != 3 || err != nil {
			t.Fatal(n, err)
		}
		if s := w.conn.Stats(); s.Segmented != 0 || s.GSO || !strings.Contains(s.GSOReason, "MSG_MORE") {
			t.Errorf("%+v", s)
		}
	}
}

// TestEIOOutlivesOptions: a device that cannot segment does so no sooner
// because an option was set that turns segmentation off too, and taken back.
func TestEIOOutlivesOptions(t *testing.T) {
	w := kinds[0].world(t, 1, nil)
	g := &w.conn.send.gso
	check := func(reason string) {
		t.Helper()
		if s := w.conn.Stats(); s.GSO != (reason == "") || !strings.Contains(s.GSOReason, reason) {
			t.Errorf("%v because of %q, want %q", s.GSO, s.GSOReason, reason)
		}
	}
	for i := range maxEIO {
		g.remember(refusal{numbered(i), 100, syscall.EIO})
	}
	check("EIO")
	control(t, w.conn, option(unix.SOL_UDP, unix.UDP_CORK, 1))
	check("UDP_CORK")
	control(t, w.conn, option(unix.SOL_UDP, unix.UDP_CORK, 0))
	check("EIO")
	g.age(eioRetry - time.Minute)
	control(t, w.conn, option(unix.SOL_UDP, unix.UDP_CORK, 0))
	check("EIO")
	g.age(time.Minute)
	check("")
}

// TestDamagedKernel: GSOOn segments also on the kernels that GSOAuto avoids,
// and only there is a difference.
func TestDamagedKernel(t *testing.T) {
	usual := damagedRelease
	defer func() { damagedRelease = usual }()
	for _, reason := range []string{"", "this kernel is damaged"} {
		damagedRelease = func() string { return reason }
		for mode, on := range map[GSOMode]bool{GSOAuto: reason == "", GSOOn: true, GSOOff: false} {
			w := kinds[0].world(t, 1, &Config{GSO: mode})
			w.conn.SendMessages(nil, w.messages(0, nil, 10, 10), 0)
			w.inboxes[0].observed(t, 2)
			if s := w.conn.Stats(); s.GSO != on || (s.Segmented == 2) != on || mode == GSOAuto && s.GSOReason != reason {
				t.Errorf("%q, mode %v: %+v", reason, mode, s)
			}
		}
	}
}

// bursts reads total bytes and returns how many came with each read.
func (in *inbox) bursts(t *testing.T, total int) (ns []int) {
	t.Helper()
	p := make([]byte, 1<<16)
	for total > 0 {
		ns = append(ns, len(in.read(t, p)))
		total -= ns[len(ns)-1]
	}
	return ns
}

// An edge is a batch at a limit, and how many of it are to be segmented.
type edge struct {
	name           string
	sizes          []int
	vectors        int
	segmented, old uint64 // old: where headers count
}

func edges() []edge {
	sizes := func(n, size int, more ...int) []int { return append(slices.Repeat([]int{size}, n), more...) }
	return []edge{
		{"64 segments", sizes(63, 1000, 940), 1, 64, 64},
		{"64 segments and a byte more", sizes(63, 1000, 941), 1, 64, 63},
		{"65 segments", sizes(63, 1000, 940, 1), 1, 64, 64},
		{"63 of 60", sizes(63, 60), 1, 63, 63},
		{"64 of 60", sizes(64, 60), 1, 64, 63},
		{"64 of 1", sizes(64, 1), 1, 64, 64},
		{"65 of 1", sizes(65, 1), 1, 64, 64},
		{"4 of 1", sizes(4, 1), 1, 4, 4},
		{"5 of 1", sizes(5, 1), 1, 5, 4},
		{"65507 bytes", sizes(2, 32753, 1), 1, 3, 3},
		{"65508 bytes", sizes(2, 32753, 2), 1, 2, 2},
		{"1024 vectors", sizes(16, 1200), 64, 16, 16},
		{"1025 vectors", sizes(41, 1200), 25, 40, 40},
		{"1024 of one byte", sizes(2, 512), 512, 2, 2},
	}
}

// TestEdges: what the planner takes for allowed the kernel takes, at the edge
// of each limit; one past it is two messages.
func TestEdges(t *testing.T) {
	for _, test := range edges() {
		t.Run(test.name, func(t *testing.T) {
			forEachKind(t, 3, nil, func(t *testing.T, w *world) {
				for round := range 2 * len(w.inboxes) {
					i, segmented := round/2, test.old
					if w.conn.send.gso.headers = oldHeaders; round%2 == 0 && sys.CountedHeaders == 0 {
						w.conn.send.gso.headers, segmented = 0, test.segmented
					}
					var msgs []OutputMessage
					var want [][]byte
					for j, n := range test.sizes {
						p := contents(j, n)
						m := OutputMessage{Addr: w.dest[i]}
						for v := range test.vectors {
							m.Vectors = append(m.Vectors, p[v*n/test.vectors:(v+1)*n/test.vectors])
						}
						msgs, want = append(msgs, m), append(want, p)
					}
					before := w.conn.Stats()
					if n, err := w.conn.SendMessages(nil, msgs, 0); n != len(msgs) || err != nil {
						t.Fatal(n, err)
					}
					w.inboxes[i].expect(t, want)
					s := w.conn.Stats()
					if s.Segmented-before.Segmented != segmented || s.Fallbacks != 0 || s.Calls-before.Calls != 1 {
						t.Errorf("%+v, want %d segmented in one call", s, segmented)
					}
				}
			})
		})
	}
}

// TestJoinedVectors: vectors that lie one behind the other in an array go as
// one, others do not, and empty ones are left out.
func TestJoinedVectors(t *testing.T) {
	buf := contents(1, 1000)
	other := contents(2, 1000)
	for _, test := range []struct {
		name string
		cut  [][]byte // a message of 100 bytes each
		want []int
	}{
		{"in a row", [][]byte{buf[:100], buf[100:200], buf[200:300]}, []int{300}},
		{"a gap", [][]byte{buf[:100], buf[101:201], buf[201:301]}, []int{100, 200}},
		{"backwards", [][]byte{buf[100:200], buf[:100]}, []int{100, 100}},
		{"the same twice", [][]byte{buf[:100], buf[:100]}, []int{100, 100}},
		{"two arrays", [][]byte{buf[900:], other[:100], other[100:200]}, []int{100, 200}},
		{"no capacity", [][]byte{buf[:100:100], buf[100:200:200]}, []int{100, 100}},
		{"not enough capacity", [][]byte{buf[:100:199], buf[100:200]}, []int{100, 100}},
		{"enough capacity", [][]byte{buf[:100:200], buf[100:200]}, []int{200}},
	} {
		w := kinds[0].world(t, 1, nil)
		var pending [][]byte
		refuse(t, w.conn, 0, func(_ int, m *ipv4.Message) error {
			pending = slices.Clone(m.Buffers)
			return nil
		})
		var msgs []OutputMessage
		var want [][]byte
		for _, p := range test.cut {
			msgs = append(msgs, OutputMessage{Addr: w.dest[0], Vectors: [][]byte{nil, p, {}}})
			want = append(want, bytes.Clone(p))
		}
		if n, err := w.conn.SendMessages(nil, msgs, 0); n != len(msgs) || err != nil {
			t.Fatal(n, err)
		}
		w.inboxes[0].expect(t, want)
		var got []int
		for _, v := range pending {
			got = append(got, len(v))
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: vectors of %d bytes, want %d", test.name, got, test.want)
		}
	}
}

// TestEnvironment: the operator's word is above the program's.
func TestEnvironment(t *testing.T) {
	for _, mode := range []GSOMode{GSOAuto, GSOOn} {
		for value, on := range map[string]bool{"off": false, "": true, "on": true} {
			t.Setenv("BATCHCONN_GSO", value)
			w := kinds[0].world(t, 1, &Config{GSO: mode})
			w.conn.SendMessages(nil, w.messages(0, nil, 10, 10), 0)
			w.inboxes[0].observed(t, 2)
			s := w.conn.Stats()
			if s.GSO != on || (s.Segmented == 2) != on || strings.Contains(s.GSOReason, "BATCHCONN_GSO") == on {
				t.Errorf("BATCHCONN_GSO=%s, mode %v: %+v", value, mode, s)
			}
		}
	}
}

// TestSelfTest: only a wrong shape says that the kernel does not segment.
func TestSelfTest(t *testing.T) {
	v4 := net.IPv4(127, 0, 0, 1)
	segment := sys.AppendSegmentControl(nil, 2, nil)
	if failed, known := segmentsOn(v4, segment); failed || !known {
		t.Errorf("this kernel: failed %v, known %v", failed, known)
	}
	for name, control := range map[string][]byte{"ignored": nil, "cut elsewhere": sys.AppendSegmentControl(nil, 1, nil)} {
		if failed, known := segmentsOn(v4, control); !failed || !known {
			t.Errorf("%s: failed %v, known %v", name, failed, known)
		}
	}
	for name, control := range map[string][]byte{"refused": make([]byte, unix.SizeofCmsghdr), "no answer": segment} {
		ip := v4
		if name == "no answer" {
			ip = net.IPv4(192, 0, 2, 1) // nobody's
		}
		if failed, known := segmentsOn(ip, control); failed || known {
			t.Errorf("%s: failed %v, known %v", name, failed, known)
		}
	}
}

// TestSelfTestFails: a kernel that does not segment is sent nothing segmented.
func TestSelfTestFails(t *testing.T) {
	testAgain(t, &segmentTest, func(ip net.IP) (failed, known bool) { return segmentsOn(ip, nil) })
	for _, mode := range []GSOMode{GSOAuto, GSOOn} {
		w := kinds[0].world(t, 1, &Config{GSO: mode})
		w.conn.SendMessages(nil, w.messages(0, nil, 10, 10), 0)
		w.inboxes[0].observed(t, 2)
		if s := w.conn.Stats(); s.GSO || s.Segmented != 0 || !strings.Contains(s.GSOReason, "loopback") {
			t.Errorf("mode %v: %+v", mode, s)
		}
	}
}
