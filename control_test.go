// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
)

const (
	allControl  = ControlLocal | ControlDst | ControlInterface | ControlTOS | ControlTTL | ControlTime | ControlDropped
	fromHeaders = ControlLocal | ControlDst | ControlInterface | ControlTOS | ControlTTL // of every datagram, on Linux
)

// onlyLinux skips where the table of ControlMessage has a dash.
func onlyLinux(t testing.TB) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("not every field is to be had here")
	}
}

// controlConn is a Conn that asks for control messages.
func controlConn(t testing.TB, network, host string, which ControlFlags) *Conn {
	t.Helper()
	c := newConn(t, listen(t, network, host), nil)
	if err := c.ReceiveControl(which); err != nil {
		t.Fatal(err)
	}
	return c
}

// next reads a datagram with what came beside it.
func (c *Conn) next(t testing.TB) (p []byte, m ControlMessage, from netip.AddrPort) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	buf, oob := make([]byte, 2000), make([]byte, 256)
	n, oobn, _, from, err := c.ReadMsgUDPAddrPort(buf, oob)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Parse(oob[:oobn]); err != nil {
		t.Fatalf("Parse(%x): %v", oob[:oobn], err)
	}
	return buf[:n], m, netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}

func (c *Conn) port() uint16 { return addrPortOf(c).Port() }

// A path is a socket that sends and one that receives, of this or that family.
type path struct {
	name           string
	network, from  string
	receives, host string     // the receiver's
	to             netip.Addr // as it is written to
	local          netip.Addr // as it is parsed
}

var paths = []path{
	{"udp4 to udp4", "udp4", "127.0.0.1", "udp4", "127.0.0.1", netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.1")},
	{"udp6 to udp6", "udp6", "::1", "udp6", "::1", netip.IPv6Loopback(), netip.IPv6Loopback()},
	{"udp4 to dual", "udp4", "127.0.0.1", "udp", "::", netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.1")},
	{"udp6 to dual", "udp6", "::1", "udp", "::", netip.IPv6Loopback(), netip.IPv6Loopback()},
	{"dual to udp4", "udp", "::", "udp4", "127.0.0.1", netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.1")},
	{"dual to udp4, mapped", "udp", "::", "udp4", "127.0.0.1", netip.MustParseAddr("::ffff:127.0.0.1"), netip.MustParseAddr("127.0.0.1")},
	{"dual to udp6", "udp", "::", "udp6", "::1", netip.IPv6Loopback(), netip.IPv6Loopback()},
	{"dual to dual, IPv4", "udp", "::", "udp", "::", netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.1")},
}

func forEachPath(t *testing.T, which ControlFlags, f func(t *testing.T, p path, s, r *Conn, to netip.AddrPort)) {
	for _, p := range paths {
		t.Run(p.name, func(t *testing.T) {
			s := newConn(t, listen(t, p.network, p.from), nil)
			r := controlConn(t, p.receives, p.host, which)
			f(t, p, s, r, netip.AddrPortFrom(p.to, r.port()))
		})
	}
}

func send1(t testing.TB, c *Conn, to netip.AddrPort, control []byte) {
	t.Helper()
	m := OutputMessage{Addr: to, Vectors: [][]byte{[]byte("hello")}, Control: control}
	if _, err := c.SendMessage(nil, &m, 0); err != nil {
		t.Fatalf("send with control %x: %v", control, err)
	}
}

// TestControlFields sends each field over each path and reads it back.
func TestControlFields(t *testing.T) {
	onlyLinux(t)
	lo := loopbackIndex(t)
	forEachPath(t, fromHeaders|ControlTime, func(t *testing.T, p path, s, r *Conn, to netip.AddrPort) {
		for _, sent := range []ControlMessage{
			{},
			{Flags: ControlTOS, TOS: 1},
			{Flags: ControlTOS, TOS: 0xb8 | 2},
			{Flags: ControlTOS, TOS: 255},
			{Flags: ControlTTL, TTL: 1},
			{Flags: ControlTTL, TTL: 255},
			{Flags: ControlInterface, IfIndex: lo},
			{Flags: ControlLocal, Local: p.local},
			{Flags: ControlLocal | ControlInterface | ControlTOS | ControlTTL, Local: p.local, IfIndex: lo, TOS: 3, TTL: 7},
			{TOS: 9, TTL: 9, IfIndex: 1 << 20, Local: netip.MustParseAddr("192.0.2.1")},             // nothing is set
			{Flags: ControlDst | ControlDropped, Dst: netip.MustParseAddr("192.0.2.1"), Dropped: 5}, // nothing to send
		} {
			before := time.Now().Round(0)
			send1(t, s, to, sent.Append(nil, to.Addr()))
			_, got, _ := r.next(t)
			after := time.Now().Round(0)
			want := ControlMessage{Flags: fromHeaders | ControlTime, Local: p.local, Dst: p.local, IfIndex: lo, TTL: 64, Time: got.Time}
			if sent.Flags&ControlTOS != 0 {
				want.TOS = sent.TOS
			}
			if sent.Flags&ControlTTL != 0 {
				want.TTL = sent.TTL
			}
			if got != want {
				t.Errorf("sent %+v\ngot  %+v\nwant %+v", sent, got, want)
			}
			if got.Time.Before(before) || got.Time.After(after) {
				t.Errorf("received at %v, sent at %v and read at %v", got.Time, before, after)
			}
			if got.ECN() != want.TOS&3 {
				t.Errorf("ECN is %d of TOS %#x", got.ECN(), got.TOS)
			}
		}
	})
}

func loopbackIndex(t testing.TB) int {
	t.Helper()
	ifis, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, ifi := range ifis {
		if ifi.Flags&net.FlagLoopback != 0 {
			return ifi.Index
		}
	}
	t.Skip("no loopback interface")
	return 0
}

// TestReceiveControl has the system add the messages for each field alone, for
// all that it supports, and for none.
func TestReceiveControl(t *testing.T) {
	forEachPath(t, 0, func(t *testing.T, p path, s, r *Conn, to netip.AddrPort) {
		for f := ControlFlags(0); f <= ControlDropped; f = max(1, f<<1) {
			err := r.ReceiveControl(f)
			if errors.Is(err, errors.ErrUnsupported) && runtime.GOOS != "linux" {
				continue
			}
			if err != nil {
				t.Errorf("ReceiveControl(%#x): %v", f, err)
			}
			send1(t, s, to, nil)
			_, m, _ := r.next(t)
			want := f &^ ControlDropped // of which there are none
			if f&(ControlLocal|ControlDst|ControlInterface) != 0 && runtime.GOOS == "linux" {
				want = ControlLocal | ControlDst | ControlInterface // one option
			}
			if m.Flags&want != want || runtime.GOOS == "linux" && m.Flags != want {
				t.Errorf("ReceiveControl(%#x): a datagram has %#x, want %#x", f, m.Flags, want)
			}
		}
	})
}

// TestReceiveControlReadBatch reads with x/net's shape.
func TestReceiveControlReadBatch(t *testing.T) {
	onlyLinux(t)
	s := newConn(t, listen(t, "udp4", "127.0.0.1"), nil)
	r := controlConn(t, "udp4", "127.0.0.1", ControlTOS)
	for i := range 3 {
		send1(t, s, addrPortOf(r), (&ControlMessage{Flags: ControlTOS, TOS: i}).Append(nil, addrPortOf(r).Addr()))
	}
	r.SetReadDeadline(time.Now().Add(patience))
	ms := make([]ipv4.Message, 3)
	for i := range ms {
		ms[i].Buffers, ms[i].OOB = [][]byte{make([]byte, 10)}, make([]byte, 256)
	}
	for n := 0; n < len(ms); {
		k, err := r.ReadBatch(ms[n:], 0)
		if err != nil {
			t.Fatal(err)
		}
		n += k
	}
	for i := range ms {
		var m ControlMessage
		if err := m.Parse(ms[i].OOB[:ms[i].NN]); err != nil || m.Flags != ControlTOS || m.TOS != i {
			t.Errorf("datagram %d: %+v, %v", i, m, err)
		}
	}
}

// TestReceiveControlErrors: no socket, a closed one, and what there is not.
func TestReceiveControlErrors(t *testing.T) {
	c := newConn(t, listen(t, "udp4", "127.0.0.1"), nil)
	check := func(c *Conn, which ControlFlags, want error) {
		t.Helper()
		err := c.ReceiveControl(which)
		var op *net.OpError
		if !errors.As(err, &op) || op.Op != "set" || want != nil && !errors.Is(err, want) {
			t.Errorf("ReceiveControl(%#x): %v, want a *net.OpError with Op set and %v", which, err, want)
		}
	}
	check(c, ControlDropped<<1, errors.ErrUnsupported)
	check(c, ControlTOS|1<<20, errors.ErrUnsupported)
	check(new(Conn), 0, nil)
	c.Close()
	check(c, 0, net.ErrClosed)
}

// TestReceiveControlWhileReading changes the options from several goroutines
// under a reader that waits, and under one that reads.
func TestReceiveControlWhileReading(t *testing.T) {
	for _, waits := range []bool{true, false} {
		s := newConn(t, listen(t, "udp4", "127.0.0.1"), nil)
		r := controlConn(t, "udp4", "127.0.0.1", 0)
		const datagrams = 200
		read := make(chan struct{})
		go func() {
			defer close(read)
			for range datagrams {
				r.next(t)
			}
		}()
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				for j := range 50 {
					if err := r.ReceiveControl(ControlFlags(i+j) & (ControlLocal | ControlInterface | ControlTTL)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		if waits {
			wg.Wait()
		}
		for range datagrams {
			send1(t, s, addrPortOf(r), nil)
		}
		wg.Wait()
		<-read
		if err := r.ReceiveControl(ControlTTL); err != nil {
			t.Fatal(err)
		}
		send1(t, s, addrPortOf(r), nil)
		if _, m, _ := r.next(t); m.Flags != ControlTTL {
			t.Errorf("in the end a datagram has %#x, want %#x", m.Flags, ControlTTL)
		}
	}
}

// TestReceiveControlAtOnce: of two calls at once one wins as a whole.
func TestReceiveControlAtOnce(t *testing.T) {
	onlyLinux(t)
	s := newConn(t, listen(t, "udp4", "127.0.0.1"), nil)
	r := controlConn(t, "udp4", "127.0.0.1", 0)
	either, or := ControlLocal|ControlDst|ControlInterface|ControlTime, ControlTOS|ControlTTL
	for range 100 {
		var wg sync.WaitGroup
		for _, which := range []ControlFlags{either, or} {
			wg.Go(func() {
				for range 10 {
					if err := r.ReceiveControl(which); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		send1(t, s, addrPortOf(r), nil)
		if _, m, _ := r.next(t); m.Flags != either && m.Flags != or {
			t.Fatalf("a datagram has %#x, want %#x or %#x", m.Flags, either, or)
		}
	}
}

// TestControlNoAllocation: neither direction allocates, for either family.
func TestControlNoAllocation(t *testing.T) {
	m := ControlMessage{Flags: allControl, IfIndex: 1, TOS: 2, TTL: 64, Time: time.Now()}
	b := make([]byte, 0, 128)
	for _, host := range []string{"127.0.0.1", "::1", "::ffff:127.0.0.1"} {
		addr := netip.MustParseAddr(host)
		m.Local = addr
		if n := testing.AllocsPerRun(100, func() { b = m.Append(b[:0], addr) }); n != 0 {
			t.Errorf("Append to %s: %v allocations", host, n)
		}
		var got ControlMessage
		var err error
		if n := testing.AllocsPerRun(100, func() { err = got.Parse(b) }); n != 0 || err != nil {
			t.Errorf("Parse of messages to %s: %v allocations, error %v", host, n, err)
		}
	}
	if n := testing.AllocsPerRun(100, func() { m.Parse([]byte{1}) }); n != 0 {
		t.Errorf("Parse with an error: %v allocations", n)
	}
}

// TestControlAppend: what Append leaves out, and that it appends.
func TestControlAppend(t *testing.T) {
	v4, v6 := netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("2001:db8::1")
	for _, test := range []struct {
		name string
		m    ControlMessage
		to   netip.Addr
	}{
		{"no flag", ControlMessage{Local: v4, IfIndex: 1, TOS: 1, TTL: 1, Time: time.Now()}, v4},
		{"not for sending", ControlMessage{Flags: ControlDst | ControlDropped, Dst: v4, Dropped: 1}, v4},
		{"IPv6 source to IPv4", ControlMessage{Flags: ControlLocal, Local: v6}, v4},
		{"IPv4 source to IPv6", ControlMessage{Flags: ControlLocal, Local: v4}, v6},
		{"no source", ControlMessage{Flags: ControlLocal}, v6},
		{"no interface", ControlMessage{Flags: ControlInterface}, v4},
	} {
		if b := test.m.Append(nil, test.to); len(b) != 0 {
			t.Errorf("%s: %x", test.name, b)
		}
	}
	one := (&ControlMessage{Flags: ControlTOS, TOS: 1}).Append(nil, v6)
	two := (&ControlMessage{Flags: ControlTTL, TTL: 2}).Append(one, v6)
	var m ControlMessage
	if err := m.Parse(two); runtime.GOOS != "windows" && (err != nil || m.Flags != ControlTOS|ControlTTL || m.TOS != 1 || m.TTL != 2) {
		t.Errorf("one after the other: %+v, %v", m, err)
	}
	mapped := netip.MustParseAddr("::ffff:127.0.0.2")
	for _, local := range []netip.Addr{v4, mapped} {
		m := ControlMessage{Flags: ControlLocal, Local: local}
		if a, b := m.Append(nil, v4), m.Append(nil, mapped); string(a) != string(b) {
			t.Errorf("to %v %x, to %v %x", v4, a, mapped, b)
		}
	}
}

// documented is a row of a table of package documentation: what the system has
// of each field. It is without the dashes.
func documented(t *testing.T, table string) map[string]string {
	t.Helper()
	text, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := bytes.Cut(text, []byte("//\t"+table+" "))
	if !found {
		t.Fatalf("no table of %s", table)
	}
	head, rows, _ := strings.Cut(string(text), "\n")
	system := map[string]string{
		"android": "Linux", "linux": "Linux", "darwin": "macOS", "ios": "macOS", "freebsd": "FreeBSD", "dragonfly": "DragonFly", "openbsd": "OpenBSD",
		"netbsd": "NetBSD", "illumos": "Solaris", "solaris": "Solaris", "aix": "AIX", "windows": "Windows",
	}[runtime.GOOS]
	_, row, found := strings.Cut(rows, "//\t"+system+" ")
	row, _, _ = strings.Cut(row, "\n")
	names, values := strings.Fields(head), strings.Fields(row)
	if !found || len(names) != len(values) {
		t.Fatalf("%s: %q of %q", system, values, names)
	}
	has := make(map[string]string)
	for i, name := range names {
		has[name] = values[i]
	}
	return has
}

var fieldNames = map[string]ControlFlags{
	"Local": ControlLocal, "Dst": ControlDst, "Interface": ControlInterface, "TOS": ControlTOS, "TTL": ControlTTL, "Time": ControlTime, "Dropped": ControlDropped,
}

// asDocumented is how the tables say that a field is to be had with a family.
func asDocumented(ipv4, ipv6 bool) string {
	switch {
	case ipv4 && ipv6:
		return "yes"
	case ipv6:
		return "IPv6"
	case ipv4:
		return "IPv4"
	}
	return "-"
}

// TestControlTableSending: Append writes what the documentation says of this
// system.
func TestControlTableSending(t *testing.T) {
	row := documented(t, "sending")
	for name, flag := range fieldNames {
		writes := func(addr netip.Addr) bool {
			m := ControlMessage{Flags: flag, Local: addr, Dst: addr, IfIndex: 1, TOS: 8, TTL: 1, Time: time.Now(), Dropped: 1}
			return len(m.Append(nil, addr)) > 0
		}
		if got := asDocumented(writes(netip.MustParseAddr("127.0.0.1")), writes(netip.IPv6Loopback())); got != row[name] {
			t.Errorf("%s: %s, documented is %q", name, got, row[name])
		}
	}
}

// TestControlTableReceiving: ReceiveControl can do what the documentation says.
func TestControlTableReceiving(t *testing.T) {
	onlyLinux(t) // Wine and old systems have less than the table says
	row := documented(t, "receiving")
	v4, v6 := controlConn(t, "udp4", "127.0.0.1", 0), controlConn(t, "udp6", "::1", 0)
	for name, flag := range fieldNames {
		if got := asDocumented(v4.ReceiveControl(flag) == nil, v6.ReceiveControl(flag) == nil); got != row[name] {
			t.Errorf("%s: %s, documented is %q", name, got, row[name])
		}
	}
}

// TestControlParseResets: nothing of an earlier message is left.
func TestControlParseResets(t *testing.T) {
	m := ControlMessage{Flags: allControl, Local: netip.IPv6Loopback(), TOS: 1, TTL: 1, IfIndex: 1, Time: time.Now(), Dropped: 1}
	if err := m.Parse(nil); err != nil || m != (ControlMessage{}) {
		t.Errorf("%+v, %v", m, err)
	}
	m.TOS = 5
	if err := m.Parse([]byte{1, 2, 3}); err == nil || m != (ControlMessage{}) {
		t.Errorf("%+v, %v", m, err)
	}
}

// BenchmarkControl makes and reads the messages of a reply, as x/net does it
// too.
func BenchmarkControl(b *testing.B) {
	addr := netip.MustParseAddr("127.0.0.2")
	m := ControlMessage{Flags: ControlLocal | ControlInterface, Local: addr, IfIndex: 1}
	control := m.Append(nil, addr)
	x := ipv4.ControlMessage{Src: addr.AsSlice(), IfIndex: 1}
	b.Run("Append", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			control = m.Append(control[:0], addr)
		}
	})
	b.Run("Append/xnet", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			control = x.Marshal()
		}
	})
	b.Run("Parse", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := m.Parse(control); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Parse/xnet", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			x = ipv4.ControlMessage{}
			if err := x.Parse(control); err != nil {
				b.Fatal(err)
			}
		}
	})
}
