// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/batchconn/batchconn/internal/sys"
)

// netMethods are those of *net.UDPConn.
type netMethods interface {
	net.PacketConn
	net.Conn
	syscall.Conn
	File() (*os.File, error)
	ReadFromUDP([]byte) (int, *net.UDPAddr, error)
	ReadFromUDPAddrPort([]byte) (int, netip.AddrPort, error)
	ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error)
	ReadMsgUDPAddrPort(b, oob []byte) (n, oobn, flags int, addr netip.AddrPort, err error)
	SetReadBuffer(int) error
	SetWriteBuffer(int) error
	WriteToUDP([]byte, *net.UDPAddr) (int, error)
	WriteToUDPAddrPort([]byte, netip.AddrPort) (int, error)
	WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error)
	WriteMsgUDPAddrPort(b, oob []byte, addr netip.AddrPort) (n, oobn int, err error)
}

var (
	_ netMethods = (*net.UDPConn)(nil)
	_ netMethods = (*Conn)(nil)
)

// results is what a call returned.
type results []any

func returned(vs ...any) results { return vs }

// text makes results of twins comparable: it leaves out their own address, and
// tells of an error all that a caller can see.
func (r results) text(c netMethods) string {
	var s strings.Builder
	for _, v := range r {
		if err, ok := v.(error); ok {
			fmt.Fprintf(&s, "error %s", err)
			for e := err; e != nil; e = errors.Unwrap(e) {
				fmt.Fprintf(&s, " %T", e)
			}
			if e, ok := err.(net.Error); ok {
				fmt.Fprintf(&s, " timeout=%v temporary=%v", e.Timeout(), isTemporary(e))
			}
		} else {
			fmt.Fprintf(&s, "%T %v", v, v)
		}
		s.WriteString("; ")
	}
	text := s.String()
	if a := c.LocalAddr(); a != nil {
		text = strings.ReplaceAll(text, a.String(), "LOCAL")
	}
	return text
}

// classes are the errors that callers test for, those that package net names
// first.
var classes = []error{net.ErrClosed, os.ErrDeadlineExceeded, net.ErrWriteToConnected, syscall.EINVAL, syscall.EMSGSIZE,
	syscall.ENETUNREACH, syscall.EAGAIN, syscall.ECONNREFUSED, syscall.EDESTADDRREQ}

// wroteMsg is what WriteMsgUDP and WriteMsgUDPAddrPort returned. On Windows n
// is 0 if net sent it (internal/poll, FD.WriteMsg), and the length if we did.
func wroteMsg(n, oobn int, err error) results {
	if runtime.GOOS == "windows" {
		n = 0
	}
	return returned(n, oobn, err)
}

// class is text without the words of errors: n, and what errors are. Where net
// hands Windows' own numbers through, they are none of syscall's names.
func (r results) class(netMethods) string {
	classes := classes
	if runtime.GOOS == "windows" {
		classes = classes[:3] // named by package net
	}
	var s strings.Builder
	for _, v := range r {
		err, ok := v.(error)
		if !ok {
			fmt.Fprintf(&s, "%T %v; ", v, v)
			continue
		}
		s.WriteString("error")
		var addrErr *net.AddrError
		if errors.As(err, &addrErr) {
			s.WriteString(" AddrError")
		}
		for _, class := range classes {
			missing := class == syscall.EDESTADDRREQ && strings.Contains(err.Error(), "missing address")
			if errors.Is(err, class) || missing {
				fmt.Fprintf(&s, " %v", class)
			}
		}
		s.WriteString("; ")
	}
	return s.String()
}

// A method is a call of one of net's methods with certain arguments.
type method struct {
	name string
	call func(c netMethods) results
}

// writes are the Write family with every address that w's receivers have or
// that somebody may come up with.
func (w *world) writes() []method {
	var ms []method
	p, oob := []byte("payload"), []byte(nil)
	add := func(name string, f func(c netMethods) results) { ms = append(ms, method{name, f}) }
	sizes := [][]byte{p, nil}
	if w.connected {
		sizes = append(sizes, make([]byte, 70000)) // else two things are wrong
	}
	for _, p := range sizes {
		add(fmt.Sprint("Write of ", len(p)), func(c netMethods) results { return returned(c.Write(p)) })
	}
	for name, a := range w.netAddrs() {
		add("WriteTo "+name, func(c netMethods) results { return returned(c.WriteTo(p, a)) })
		if a, ok := a.(*net.UDPAddr); ok {
			add("WriteToUDP "+name, func(c netMethods) results { return returned(c.WriteToUDP(p, a)) })
			add("WriteMsgUDP "+name, func(c netMethods) results { return wroteMsg(c.WriteMsgUDP(p, oob, a)) })
		}
	}
	for name, a := range w.addrPorts() {
		add("WriteToUDPAddrPort "+name, func(c netMethods) results { return returned(c.WriteToUDPAddrPort(p, a)) })
		add("WriteMsgUDPAddrPort "+name, func(c netMethods) results { return wroteMsg(c.WriteMsgUDPAddrPort(p, oob, a)) })
		long := make([]byte, 70000)
		add("too long WriteToUDPAddrPort "+name, func(c netMethods) results { return returned(c.WriteToUDPAddrPort(long, a)) })
	}
	if runtime.GOOS == "linux" {
		badOOB := make([]byte, 64)
		to := w.dest[0]
		add("bad control data", func(c netMethods) results { return returned(c.WriteMsgUDPAddrPort(p, badOOB, to)) })
	}
	return ms
}

func (w *world) netAddrs() map[string]net.Addr {
	addrs := map[string]net.Addr{
		"nil":       nil,
		"typed nil": (*net.UDPAddr)(nil),
		"foreign":   &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9},
		"odd IP":    &net.UDPAddr{IP: make([]byte, 5), Port: 9},
		"odd IP 0":  &net.UDPAddr{IP: make([]byte, 5)},
		"no port":   &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: -1},
	}
	for i, in := range w.inboxes {
		port := int(in.addr.Port())
		addrs[fmt.Sprint("good", i)] = net.UDPAddrFromAddrPort(in.addr)
		addrs[fmt.Sprint("no port ", i)] = &net.UDPAddr{IP: in.addr.Addr().AsSlice(), Port: port + 1<<16}
		addrs[fmt.Sprint("16-byte", i)] = &net.UDPAddr{IP: net.IP(in.addr.Addr().AsSlice()).To16(), Port: port}
		addrs[fmt.Sprint("IP-less", i)] = &net.UDPAddr{Port: port}
		addrs[fmt.Sprint("0.0.0.0", i)] = &net.UDPAddr{IP: net.IPv4zero, Port: port}
		addrs[fmt.Sprint("::", i)] = &net.UDPAddr{IP: net.IPv6zero, Port: port}
		addrs[fmt.Sprint("port 0 ", i)] = &net.UDPAddr{IP: in.addr.Addr().AsSlice()}
		addrs[fmt.Sprint("IPv4 ", i)] = &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}
		addrs[fmt.Sprint("IPv6 ", i)] = &net.UDPAddr{IP: net.IPv6loopback, Port: port}
	}
	if runtime.GOOS == "windows" { // net takes the low 16 bits of a port; we reject it
		maps.DeleteFunc(addrs, func(name string, _ net.Addr) bool { return strings.HasPrefix(name, "no port") })
	}
	return addrs
}

func (w *world) addrPorts() map[string]netip.AddrPort {
	addrs := map[string]netip.AddrPort{"zero": {}}
	for name, a := range w.netAddrs() {
		if udp, ok := a.(*net.UDPAddr); ok && udp.AddrPort().IsValid() {
			addrs[name] = udp.AddrPort()
		}
	}
	for i, in := range w.inboxes {
		addrs[fmt.Sprint("mapped", i)] = mapped(in.addr)
	}
	return addrs
}

// collect reads what arrived at the inboxes.
func (w *world) collect(t testing.TB) string {
	t.Helper()
	var s strings.Builder
	buf := make([]byte, 1<<16)
	for _, in := range w.inboxes {
		marker, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(in.addr))
		if err != nil {
			t.Fatal(err)
		}
		marker.Write(endMark)
		marker.Close()
		for {
			p := in.read(t, buf)
			if bytes.Equal(p, endMark) {
				break
			}
			fmt.Fprintf(&s, "%q ", p)
		}
		s.WriteString("| ")
	}
	return s.String()
}

// TestWritesAsNet: the Write family does what that of a bare UDPConn does,
// with good and bad arguments, in time, late and after Close.
func TestWritesAsNet(t *testing.T) { compareWrites(t, nil, results.text) }

// TestWritesNonBlocking: under Config.NonBlocking the same happens, in words
// that may differ.
func TestWritesNonBlocking(t *testing.T) {
	compareWrites(t, &Config{NonBlocking: true}, results.class)
}

func compareWrites(t *testing.T, cfg *Config, shown func(results, netMethods) string) {
	states := []struct {
		name string
		ends error // every write; NonBlocking says so before it looks at the arguments
		set  func(c netMethods)
	}{
		{"open", nil, func(c netMethods) { c.SetDeadline(time.Now().Add(time.Hour)) }},
		{"late", os.ErrDeadlineExceeded, func(c netMethods) { c.SetWriteDeadline(time.Now().Add(-time.Hour)) }},
		{"in time again", nil, func(c netMethods) { c.SetWriteDeadline(time.Time{}) }},
		{"late by SetDeadline", os.ErrDeadlineExceeded, func(c netMethods) { c.SetDeadline(time.Now().Add(-time.Hour)) }},
		{"closed", net.ErrClosed, func(c netMethods) { c.Close() }},
	}
	forEachKind(t, 2, cfg, func(t *testing.T, w *world) {
		twin := w.socket(t, w.inboxes[0])
		for _, state := range states {
			state.set(twin)
			state.set(w.conn)
			for _, m := range w.writes() {
				w.collect(t)
				want := shown(m.call(twin), twin) + w.collect(t)
				got := shown(m.call(w.conn), w.conn) + w.collect(t)
				if got != want && !(cfg != nil && state.ends != nil && strings.Contains(got, "error "+state.ends.Error())) {
					t.Errorf("%s, %s:\n got %s\nwant %s", state.name, m.name, got, want)
				}
			}
		}
	})
}

// readNothing is a Read without room, which does not read.
const readNothing = "Read of nothing"

// TestReadsAsNet: reads and their errors are a bare UDPConn's, whether net
// reads, or we do, and whether what is read was held.
func TestReadsAsNet(t *testing.T) {
	buf, oob := make([]byte, 1<<16), make([]byte, 128)
	var reads []method
	for _, size := range []int{len(buf), 3, 0} {
		b, read := buf[:size], "Read"
		if size == 0 {
			read = readNothing
		}
		reads = append(reads,
			method{read, func(c netMethods) results { n, err := c.Read(b); return returned(n, string(b[:n]), err) }},
			method{"ReadFrom", func(c netMethods) results { n, a, err := c.ReadFrom(b); return returned(n, string(b[:n]), a, err) }},
			method{"ReadFromUDP", func(c netMethods) results { n, a, err := c.ReadFromUDP(b); return returned(n, string(b[:n]), a, err) }},
			method{"ReadFromUDPAddrPort", func(c netMethods) results { return returned(c.ReadFromUDPAddrPort(b)) }},
			method{"ReadMsgUDP", func(c netMethods) results {
				n, oobn, flags, a, err := c.ReadMsgUDP(b, oob)
				return returned(max(n, 0), oobn, flags, a, err) // net says -1 with some errors
			}},
			method{"ReadMsgUDPAddrPort", func(c netMethods) results {
				n, oobn, flags, a, err := c.ReadMsgUDPAddrPort(b, oob)
				return returned(max(n, 0), oobn, flags, a, err)
			}})
	}
	for _, mode := range []GROMode{GROAuto, GROOff, GROOn} {
		forEachKind(t, 1, &Config{GRO: mode}, func(t *testing.T, w *world) { w.compareReads(t, reads) })
	}
}

// compareReads makes each read of a bare UDPConn and of the Conn, in each state
// of these, and compares what they return.
func (w *world) compareReads(t *testing.T, reads []method) {
	twin := w.socket(t, w.inboxes[0])
	both := []netMethods{twin, w.conn}
	compare := func(state string, post func(c netMethods)) {
		for _, m := range reads {
			for _, c := range both {
				post(c)
			}
			want, got := m.call(twin).text(twin), m.call(w.conn).text(w.conn)
			if got != want {
				t.Errorf("%s, %s:\n got %s\nwant %s", state, m.name, got, want)
			}
		}
	}
	data := func(c netMethods) { w.post(t, c, "hello", nil) }
	nothing := func(netMethods) {}
	for _, c := range both { // if one finds nothing
		c.SetReadDeadline(time.Now().Add(patience))
	}
	compare("data", data)
	if w.conn.send.gso.disabledReason() == "" {
		for _, c := range both { // read by the first half of the methods, and by the next
			for range len(reads) / 2 {
				w.post(t, c, "hellohell", sys.AppendSegmentControl(nil, 5, nil))
			}
		}
		compare("run", nothing)
		for _, c := range both {
			readRest(c)
		}
	}
	for _, c := range both {
		c.SetReadDeadline(time.Now().Add(-time.Hour))
	}
	compare("late", nothing)
	for _, c := range both {
		c.SetDeadline(time.Now().Add(patience))
	}
	compare("data", data)
	if w.connected && runtime.GOOS == "linux" {
		w.inboxes[0].conn.Close()
		reads = slices.DeleteFunc(slices.Clone(reads), func(m method) bool { return m.name == readNothing })
		compare("refused", func(c netMethods) { makeRefused(t, w.bareOf(c)) })
	}
	for _, c := range both {
		c.Close()
	}
	compare("closed", nothing)
}

// readRest reads what the empty Reads have left.
func readRest(c netMethods) {
	c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	for err := error(nil); err == nil; {
		_, _, err = c.ReadFrom(make([]byte, 10))
	}
}

// bareOf is c itself, or what w's Conn was made of.
func (w *world) bareOf(c netMethods) *net.UDPConn {
	if u, ok := c.(*net.UDPConn); ok {
		return u
	}
	return w.bare
}

// makeRefused writes to a peer that is gone until that is pending: the kernel
// sends no more than so many ICMP messages a second.
func makeRefused(t *testing.T, u *net.UDPConn) {
	t.Helper()
	raw, err := u.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	pending := false
	for tries := 0; !pending; tries++ {
		if _, err := u.Write([]byte("x")); tries == 20 {
			t.Skipf("the peer is gone, but its port is another's by now: the last write said %v", err)
		}
		for end := time.Now().Add(50 * time.Millisecond); !pending && time.Now().Before(end); {
			raw.Control(func(fd uintptr) { _, pending = sys.Readable(fd) })
		}
	}
}

// post sends a datagram from the first inbox to c, or several if control has it
// segmented.
func (w *world) post(t testing.TB, c net.PacketConn, text string, control []byte) {
	t.Helper()
	to := addrPortOf(c)
	if to.Addr().IsUnspecified() {
		to = netip.AddrPortFrom(near.addr(w.to[0]), to.Port())
	}
	if w.inboxes[0].addr.Addr().Is4() {
		to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	}
	if _, _, err := w.inboxes[0].conn.WriteMsgUDPAddrPort([]byte(text), control, to); err != nil {
		t.Fatal(err)
	}
}

// TestRestAsNet: everything that neither reads nor writes.
func TestRestAsNet(t *testing.T) {
	rest := []method{
		{"LocalAddr", func(c netMethods) results { return returned(c.LocalAddr(), c.LocalAddr().Network()) }},
		{"RemoteAddr", func(c netMethods) results { return returned(c.RemoteAddr()) }},
		{"SetReadBuffer", func(c netMethods) results { return returned(c.SetReadBuffer(1 << 16)) }},
		{"SetWriteBuffer", func(c netMethods) results { return returned(c.SetWriteBuffer(1 << 16)) }},
		{"SetDeadline", func(c netMethods) results { return returned(c.SetDeadline(time.Now().Add(time.Hour))) }},
		{"SetReadDeadline", func(c netMethods) results { return returned(c.SetReadDeadline(time.Time{})) }},
		{"SetWriteDeadline", func(c netMethods) results { return returned(c.SetWriteDeadline(time.Time{})) }},
		{"SyscallConn", func(c netMethods) results {
			raw, err := c.SyscallConn()
			if err != nil {
				return returned(err)
			}
			ran := false
			err = raw.Control(func(fd uintptr) { ran = fd != 0 })
			return returned(err, ran)
		}},
		{"File", func(c netMethods) results {
			f, err := c.File()
			if err == nil {
				err = f.Close()
			}
			return returned(err)
		}},
	}
	for _, nonBlocking := range []bool{false, true} {
		forEachKind(t, 1, &Config{NonBlocking: nonBlocking}, func(t *testing.T, w *world) {
			twin := w.socket(t, w.inboxes[0])
			compare := func(state string, ms ...method) {
				for _, m := range ms {
					if got, want := m.call(w.conn).text(w.conn), m.call(twin).text(twin); got != want {
						t.Errorf("%s, %s:\n got %s\nwant %s", state, m.name, got, want)
					}
				}
			}
			compare("open", rest...)
			closing := method{"Close", func(c netMethods) results { return returned(c.Close()) }}
			compare("once", closing)
			compare("twice", closing)
			compare("closed", rest...)
		})
	}
}

// TestReadBatch: at least one and all that is there, as x/net does; one where
// there is no batch call.
func TestReadBatch(t *testing.T) {
	forEachKind(t, 1, nil, func(t *testing.T, w *world) {
		texts := []string{"one", "", "three", "four"}
		for _, text := range texts {
			w.post(t, w.conn, text, nil)
		}
		w.conn.SetReadDeadline(time.Now().Add(patience))
		for len(texts) > 0 {
			ms := make([]ipv4.Message, 8)
			for i := range ms {
				ms[i].Buffers = [][]byte{make([]byte, 2), make([]byte, 100)}
			}
			n, err := w.conn.ReadBatch(ms, 0)
			if n < 1 || n > len(texts) || err != nil {
				t.Fatalf("ReadBatch = %d, %v; %d are left", n, err, len(texts))
			}
			for _, m := range ms[:n] {
				if got := string(bytes.Join(m.Buffers, nil)[:m.N]); got != texts[0] {
					t.Fatalf("read %q, want %q", got, texts[0])
				}
				from := m.Addr.(*net.UDPAddr).AddrPort()
				if netip.AddrPortFrom(from.Addr().Unmap(), from.Port()) != w.inboxes[0].addr {
					t.Fatalf("read from %v, want %v", from, w.inboxes[0].addr)
				}
				texts = texts[1:]
			}
		}
		ms := []ipv4.Message{{Buffers: [][]byte{make([]byte, 100)}}}
		w.conn.SetReadDeadline(time.Unix(1, 0))
		if n, err := w.conn.ReadBatch(ms, 0); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("late ReadBatch = %d, %v", n, err)
		}
		w.conn.Close()
		if n, err := w.conn.ReadBatch(ms, 0); n != 0 || !errors.Is(err, net.ErrClosed) {
			t.Errorf("ReadBatch after Close = %d, %v", n, err)
		}
	})
}

// TestReadBatchWaitsForAll: with MsgWaitAll, for more messages than it gives
// the engine at once too.
func TestReadBatchWaitsForAll(t *testing.T) {
	for _, mode := range []GROMode{GROOff, GROOn} {
		in, out, to := readPair(t, &Config{GRO: mode})
		const n, first = maxPlain + 36, maxPlain + 6
		sent := make(chan error, 1)
		go func() {
			msgs := make([]OutputMessage, n)
			for i := range msgs {
				msgs[i] = OutputMessage{Addr: to, Vectors: [][]byte{contents(i, 20)}}
			}
			err := sendAll(out, nil, msgs[:first])
			for end := time.Now().Add(patience); err == nil && in.Stats().Received < first && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
			sent <- errors.Join(err, sendAll(out, nil, msgs[first:]))
		}()
		ms := make([]ipv4.Message, n)
		for i := range ms {
			ms[i].Buffers = [][]byte{make([]byte, 100)}
		}
		in.SetReadDeadline(time.Now().Add(patience))
		if k, err := in.ReadBatch(ms, MsgWaitAll); k != n || err != nil {
			t.Errorf("GRO %v: %d of %d, %v", mode, k, n, err)
		}
		if err := receive(t, "the sender", sent); err != nil {
			t.Fatal(err)
		}
		for i := range ms {
			if p := ms[i].Buffers[0][:ms[i].N]; !bytes.Equal(p, contents(i, 20)) {
				t.Fatalf("GRO %v: datagram %d is %s", mode, i, brief(p))
			}
		}
	}
}

// TestCloseFreesThePort: it can be bound again at once.
func TestCloseFreesThePort(t *testing.T) {
	forEachKind(t, 1, nil, func(t *testing.T, w *world) {
		laddr := w.bare.LocalAddr().(*net.UDPAddr)
		w.conn.SendTo(nil, []byte("x"), w.dest[0], 0)
		w.conn.Close()
		network := "udp"
		if w.name != "dual" {
			network = networkOfHost(laddr.IP.String())
		}
		c, err := net.ListenUDP(network, laddr)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	})
}

// TestReadBatchCuts: a datagram longer than its buffers fills them, and its
// sender and its being cut are told.
func TestReadBatchCuts(t *testing.T) {
	forEachKind(t, 1, nil, func(t *testing.T, w *world) {
		p := contents(1, 100)
		for _, sizes := range [][]int{{60}, {20, 40}, {100}, {70, 70}} {
			w.post(t, w.conn, string(p), nil)
			ms := make([]ipv4.Message, 1)
			size := 0
			for _, n := range sizes {
				ms[0].Buffers = append(ms[0].Buffers, make([]byte, n))
				size += n
			}
			n, err := w.conn.ReadBatch(ms, 0)
			got := bytes.Join(ms[0].Buffers, nil)[:ms[0].N]
			want := p[:min(size, len(p))]
			if n != 1 || err != nil || !bytes.Equal(got, want) {
				t.Errorf("%v: %d, %v with %s, want %s", sizes, n, err, brief(got), brief(want))
			}
			if cut := ms[0].Flags != 0; cut != (size < len(p)) {
				t.Errorf("%v: flags %#x", sizes, ms[0].Flags)
			}
			if from, ok := ms[0].Addr.(*net.UDPAddr); !ok || from.AddrPort().Port() != w.inboxes[0].addr.Port() {
				t.Errorf("%v: from %v, want %v", sizes, ms[0].Addr, w.inboxes[0].addr)
			}
		}
	})
}
