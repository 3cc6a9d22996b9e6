// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"reflect"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// TestReceiveModel and FuzzReceiveModel send the same datagrams to a Conn and
// to a bare socket, and read the one by any sequence of calls, and the other by
// one recvmsg a datagram with the same room: both give the same.
func TestReceiveModel(t *testing.T) {
	n := 700
	if testing.Short() {
		n = 150
	}
	for seed := range n {
		data := make([]byte, 40+seed%300)
		rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 77}).Read(data)
		if compareReads(t, data); t.Failed() {
			t.Fatalf("of seed %d", seed)
		}
	}
}

func FuzzReceiveModel(f *testing.F) {
	for kind := range byte(len(readKinds)) {
		for mode := range byte(4) {
			f.Add([]byte{kind, mode, 0, 1, 2, 60, 0, 0, 1, 7, 4, 60, 2, 0, 0, 0, 5, 5, 5})
			f.Add([]byte{kind, mode, 1, 0, 0, 3, 1, 1, 1, 1, 0, 0, 0, 4, 9, 9, 9, 9, 9, 9, 9, 9, 9})
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) { compareReads(t, data) })
}

// A readKind is a kind of socket to read from.
type readKind struct {
	name      string
	network   string
	host      string
	senders   []string // hosts that the senders send from, to the same host
	connected bool
}

var readKinds = []readKind{
	{"udp4", "udp4", "127.0.0.1", []string{"127.0.0.1", "127.0.0.1", "127.0.0.1"}, false},
	{"udp6", "udp6", "::1", []string{"::1", "::1", "::1"}, false},
	{"dual", "udp", "::", []string{"127.0.0.1", "::1", "127.0.0.1"}, false},
	{"udp4-connected", "udp4", "127.0.0.1", []string{"127.0.0.1"}, true},
	{"udp6-connected", "udp6", "::1", []string{"::1"}, true},
}

// A readWorld is a Conn and a bare socket that the same senders send to. Of the
// senders the first segments and the others do not.
type readWorld struct {
	conn    *Conn
	plain   *net.UDPConn
	senders []*Conn
	to      [2][]netip.AddrPort // of the Conn and the bare one, by sender
}

func (k readKind) world(t testing.TB, cfg *Config) *readWorld {
	t.Helper()
	w := &readWorld{}
	for i, host := range k.senders {
		mode := GSOOff
		if i == 0 {
			mode = GSOAuto
		}
		c, err := New(far.listen(t, networkOfHost(host), host), &Config{GSO: mode})
		if err != nil {
			t.Fatal(err)
		}
		w.senders = append(w.senders, c)
	}
	var u [2]*net.UDPConn
	for i := range u {
		if k.connected {
			var err error
			if u[i], err = net.DialUDP(k.network, nil, net.UDPAddrFromAddrPort(addrPortOf(w.senders[0]))); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { u[i].Close() })
		} else {
			u[i] = listen(t, k.network, k.host)
		}
		growBuffer(u[i])
		for _, host := range k.senders {
			w.to[i] = append(w.to[i], netip.AddrPortFrom(near.addr(host), addrPortOf(u[i]).Port()))
		}
	}
	c, err := New(u[0], cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.conn, w.plain = c, u[1]
	return w
}

// askControl has both sockets add control messages: which is a set of bits.
func (w *readWorld) askControl(t testing.TB, which int, v6 bool) {
	t.Helper()
	options := [][2]int{{unix.SOL_IP, unix.IP_RECVTOS}, {unix.SOL_IP, unix.IP_PKTINFO}, {unix.SOL_IP, unix.IP_RECVTTL}}
	if v6 {
		options = append(options, [][2]int{{unix.SOL_IPV6, unix.IPV6_RECVTCLASS}, {unix.SOL_IPV6, unix.IPV6_RECVPKTINFO}, {unix.SOL_IPV6, unix.IPV6_RECVHOPLIMIT}}...)
	}
	for i, o := range options {
		if which>>(i%3)&1 == 0 {
			continue
		}
		for _, c := range []syscall.Conn{w.conn, w.plain} {
			if err := controlErr(c, func(fd int) error { return unix.SetsockoptInt(fd, o[0], o[1], 1) }); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// send sends n datagrams of a size, the last shorter by less, to both.
func (w *readWorld) send(t testing.TB, sender, n, size, less, first int, control []byte) {
	t.Helper()
	for i := range w.to {
		var msgs []OutputMessage
		for k := range n {
			p := contents(first+k, size)
			if k == n-1 {
				p = p[:len(p)-min(less, len(p))]
			}
			msgs = append(msgs, OutputMessage{Addr: w.to[i][sender], Vectors: [][]byte{p}, Control: control})
		}
		for at := 0; at < n; {
			k, err := w.senders[sender].SendMessages(nil, msgs[at:], 0)
			if err != nil {
				t.Fatal(err)
			}
			at += k
		}
	}
}

// A roomFor is what a message is read into.
type roomFor struct {
	vectors [][]byte
	control []byte
}

func newRoom(sizes []int, control int) roomFor {
	r := roomFor{control: make([]byte, control)}
	for _, n := range sizes {
		r.vectors = append(r.vectors, make([]byte, n))
	}
	return r
}

// A gotten is what one message was filled with.
type gotten struct {
	payload []byte
	n       int
	control []byte
	flags   int
	from    netip.AddrPort
}

func (g gotten) String() string {
	return fmt.Sprintf("%d, %s, control %x, flags %#x, from %v", g.n, brief(g.payload), g.control, g.flags, g.from)
}

// recvmsg reads the bare socket.
func (w *readWorld) recvmsg(t testing.TB, r roomFor, flags int) gotten {
	t.Helper()
	var g gotten
	control(t, w.plain, func(fd int) error {
		deadline := time.Now().Add(patience)
		for {
			n, oobn, got, from, err := unix.RecvmsgBuffers(fd, r.vectors, r.control, flags|unix.MSG_DONTWAIT)
			if err == unix.EAGAIN && time.Now().Before(deadline) {
				continue // on its way yet
			}
			if err != nil {
				return os.NewSyscallError("recvmsg", err)
			}
			g = gotten{n: n, control: r.control[:oobn], flags: got}
			switch from := from.(type) {
			case *unix.SockaddrInet4:
				g.from = netip.AddrPortFrom(netip.AddrFrom4(from.Addr), uint16(from.Port))
			case *unix.SockaddrInet6:
				g.from = netip.AddrPortFrom(netip.AddrFrom16(from.Addr).Unmap(), uint16(from.Port))
			}
			return nil
		}
	})
	g.payload = joined(r.vectors, g.n)
	return g
}

func joined(vectors [][]byte, n int) []byte {
	p := bytes.Join(vectors, nil)
	return p[:min(n, len(p))]
}

func (g gotten) same(o gotten) bool {
	return g.n == o.n && bytes.Equal(g.payload, o.payload) && bytes.Equal(g.control, o.control) && g.flags == o.flags && g.from == o.from
}

// A readCall reads into rooms and says what they were filled with. loses says
// what the call cannot tell.
type readCall struct {
	name  string
	many  bool
	net   bool // takes one vector and no flags
	loses func(g *gotten)
	call  func(c *Conn, rooms []roomFor, flags int) ([]gotten, error)
}

func losesMessage(g *gotten) { g.control, g.flags = nil, 0 }
func losesAll(g *gotten)     { losesMessage(g); g.from = netip.AddrPort{} }
func losesNothing(*gotten)   {}

func oneGotten(r roomFor, n, oobn, flags int, from netip.AddrPort, err error) ([]gotten, error) {
	if err != nil {
		return nil, err
	}
	return []gotten{{joined(r.vectors, n), n, r.control[:oobn], flags, unmapped(from)}}, nil
}

func addrPort(a net.Addr) netip.AddrPort {
	if u, ok := a.(*net.UDPAddr); ok && u != nil {
		return u.AddrPort()
	}
	return netip.AddrPort{}
}

// What is in messages before a read, and after it in those that it did not
// fill.
var (
	untouchedInput = InputMessage{Addr: netip.MustParseAddrPort("[::1]:1"), BytesReceived: untouched, ControlReceived: untouched, Flags: untouched}
	untouchedXNet  = ipv4.Message{Addr: &net.UDPAddr{Port: 1}, N: untouched, NN: untouched, Flags: untouched}
)

var readCalls = []readCall{
	{"ReceiveMessages", true, false, losesNothing, func(c *Conn, rooms []roomFor, flags int) (got []gotten, err error) {
		msgs := make([]InputMessage, len(rooms))
		for i, r := range rooms {
			msgs[i] = untouchedInput
			msgs[i].Vectors, msgs[i].Control = r.vectors, r.control
		}
		n, err := c.ReceiveMessages(nil, msgs, flags)
		for i, m := range msgs[:n] {
			got = append(got, gotten{joined(rooms[i].vectors, m.BytesReceived), m.BytesReceived, rooms[i].control[:m.ControlReceived], m.Flags, m.Addr})
		}
		for i, m := range msgs[n:] {
			m.Vectors, m.Control = nil, nil
			if !reflect.DeepEqual(m, untouchedInput) {
				return got, fmt.Errorf("of %d filled, message %d was touched: %+v", n, n+i, m)
			}
		}
		return got, err
	}},
	{"ReadBatch", true, false, losesNothing, func(c *Conn, rooms []roomFor, flags int) (got []gotten, err error) {
		ms := make([]ipv4.Message, len(rooms))
		for i, r := range rooms {
			ms[i] = untouchedXNet
			ms[i].Buffers, ms[i].OOB = r.vectors, r.control
		}
		n, err := c.ReadBatch(ms, flags)
		for i, m := range ms[:max(n, 0)] {
			got = append(got, gotten{joined(rooms[i].vectors, m.N), m.N, rooms[i].control[:m.NN], m.Flags, unmapped(addrPort(m.Addr))})
		}
		for i, m := range ms[max(n, 0):] {
			m.Buffers, m.OOB = nil, nil
			if !reflect.DeepEqual(m, untouchedXNet) {
				return got, fmt.Errorf("of %d filled, message %d was touched: %+v", n, n+i, m)
			}
		}
		if n <= 0 && err == nil && len(ms) > 0 {
			err = fmt.Errorf("%d, nil", n)
		}
		return got, err
	}},
	{"ReceiveMessage", false, false, losesNothing, func(c *Conn, rooms []roomFor, flags int) ([]gotten, error) {
		m := InputMessage{Vectors: rooms[0].vectors, Control: rooms[0].control}
		n, err := c.ReceiveMessage(nil, &m, flags)
		return oneGotten(rooms[0], n, m.ControlReceived, m.Flags, m.Addr, err)
	}},
	{"ReceiveFrom", false, false, losesMessage, func(c *Conn, rooms []roomFor, flags int) ([]gotten, error) {
		n, from, err := c.ReceiveFrom(nil, rooms[0].vectors[0], flags)
		return oneGotten(rooms[0], n, 0, 0, from, err)
	}},
	{"Read", false, true, losesAll, func(c *Conn, rooms []roomFor, _ int) ([]gotten, error) {
		n, err := c.Read(rooms[0].vectors[0])
		return oneGotten(rooms[0], n, 0, 0, netip.AddrPort{}, err)
	}},
	{"ReadFrom", false, true, losesMessage, func(c *Conn, rooms []roomFor, _ int) ([]gotten, error) {
		n, addr, err := c.ReadFrom(rooms[0].vectors[0])
		return oneGotten(rooms[0], n, 0, 0, addrPort(addr), err)
	}},
	{"ReadFromUDP", false, true, losesMessage, func(c *Conn, rooms []roomFor, _ int) ([]gotten, error) {
		n, addr, err := c.ReadFromUDP(rooms[0].vectors[0])
		return oneGotten(rooms[0], n, 0, 0, addrPort(addr), err)
	}},
	{"ReadFromUDPAddrPort", false, true, losesMessage, func(c *Conn, rooms []roomFor, _ int) ([]gotten, error) {
		n, addr, err := c.ReadFromUDPAddrPort(rooms[0].vectors[0])
		return oneGotten(rooms[0], n, 0, 0, addr, err)
	}},
	{"ReadFromAddrPort", false, true, losesMessage, func(c *Conn, rooms []roomFor, _ int) ([]gotten, error) {
		n, addr, err := c.ReadFromAddrPort(rooms[0].vectors[0])
		return oneGotten(rooms[0], n, 0, 0, addr, err)
	}},
	{"ReadMsgUDP", false, true, losesNothing, func(c *Conn, rooms []roomFor, _ int) ([]gotten, error) {
		n, oobn, flags, addr, err := c.ReadMsgUDP(rooms[0].vectors[0], rooms[0].control)
		return oneGotten(rooms[0], n, oobn, flags, addrPort(addr), err)
	}},
	{"ReadMsgUDPAddrPort", false, true, losesNothing, func(c *Conn, rooms []roomFor, _ int) ([]gotten, error) {
		n, oobn, flags, addr, err := c.ReadMsgUDPAddrPort(rooms[0].vectors[0], rooms[0].control)
		return oneGotten(rooms[0], n, oobn, flags, addr, err)
	}},
}

var (
	readSizes    = []int{1200, 1200, 100, 1, 0, 600, 1472, 9000, 65507, 2}
	roomSizes    = []int{1500, 1500, 65535, 1200, 100, 0, 600, 1, 4000}
	controlRooms = []int{0, 256, 128, 16, 20, 15, 40, 64}
	readFlags    = []int{0, 0, 0, MsgDontWait, unix.MSG_PEEK, unix.MSG_TRUNC, MsgWaitAll, unix.MSG_PEEK | unix.MSG_TRUNC, MsgDontWait | MsgWaitAll}
)

// compareReads plays what data says.
func compareReads(t *testing.T, bytes []byte) {
	data := modelBytes(bytes)
	k := readKinds[data.next(len(readKinds))]
	mode, quick := GROMode(data.next(4)), false
	if mode > GROOn {
		mode, quick = GROAuto, true
	}
	w := k.world(t, &Config{GRO: mode})
	defer w.close()
	if quick {
		setDear(t, true)
		w.conn.recv.retry.Store(sinceEpoch(time.Now().Add(time.Hour))) // coalescing pauses
	}
	w.askControl(t, data.next(8), w.conn.recv.isIPv6)
	queued, sent := 0, 0
	for len(data) > 0 {
		if queued == 0 || queued < 300 && data.next(2) == 0 {
			if queued == 0 && data.next(4) == 0 {
				w.readNothing(t)
			}
			n, size := 1+data.next(70), readSizes[data.next(len(readSizes))]
			if size > 5000 {
				n = 1 + n%8
			}
			var control []byte
			sender := data.next(len(w.senders))
			if data.next(3) == 1 {
				control = tosFor(w.to[0][sender].Addr(), byte(data.next(4)))
			}
			w.send(t, sender, n, size, data.next(3)*data.next(100), sent, control)
			queued, sent = queued+n, sent+n
			continue
		}
		if quick {
			startQuick(w.conn)
		}
		queued -= w.read(t, &data, queued)
		if t.Failed() {
			t.Logf("%s, GRO %v, quick %v, %+v", k.name, mode, quick, w.conn.Stats())
			return
		}
	}
}

func (w *readWorld) close() {
	w.conn.Close()
	w.plain.Close()
	for _, s := range w.senders {
		s.Close()
	}
}

func tosFor(to netip.Addr, tos byte) []byte {
	if to.Is4() {
		return cmsg(unix.SOL_IP, unix.IP_TOS, tos)
	}
	return cmsgInt(unix.SOL_IPV6, unix.IPV6_TCLASS, int(tos))
}

// readNothing makes sure that there is nothing.
func (w *readWorld) readNothing(t *testing.T) {
	t.Helper()
	if n, _, err := w.conn.ReceiveFrom(nil, make([]byte, 10), MsgDontWait); !errors.Is(err, ErrWouldBlock) {
		t.Errorf("there is something more: %d, %v", n, err)
	}
}

// A readPlan is one call of a model's read: into how many messages, and the
// room of each.
type readPlan struct {
	call    readCall
	flags   int
	rooms   int
	sizes   []int // of the vectors
	control int
}

func (p *readPlan) String() string {
	return fmt.Sprintf("%s of %d, vectors %v, control %d, flags %#x", p.call.name, p.rooms, p.sizes, p.control, p.flags)
}

// waitsForAll says that it returns no fewer than rooms.
func (p *readPlan) waitsForAll() bool {
	return p.flags&(MsgWaitAll|MsgDontWait|unix.MSG_PEEK) == MsgWaitAll
}

// planRead takes a call from data that does not have to wait: at least one
// datagram is queued.
func planRead(data *modelBytes, queued int) *readPlan {
	p := &readPlan{call: readCalls[data.next(len(readCalls))], rooms: 1}
	if data.next(3) == 0 {
		p.call = readCalls[0]
	}
	if !p.call.net {
		p.flags = readFlags[data.next(len(readFlags))]
	}
	if p.call.many {
		p.rooms = 1 + data.next(90)
	}
	if p.flags&MsgWaitAll != 0 && p.flags&MsgDontWait == 0 {
		p.rooms = min(p.rooms, queued)
	}
	if p.call.name == "ReadBatch" {
		p.flags &^= MsgWaitAll
	}
	size, pieces := roomSizes[data.next(len(roomSizes))], data.next(4)
	if p.call.name == "Read" && size == 0 {
		size = 1 // of which net returns 0 and takes nothing
	}
	p.sizes = []int{size}
	if !p.call.net && p.call.name != "ReceiveFrom" {
		p.sizes = [][]int{{size}, {size / 3, 0, size - size/3}, {}, {size}}[pieces]
	}
	p.control = controlRooms[data.next(len(controlRooms))]
	return p
}

// read reads by one call, and says how many datagrams that took.
func (w *readWorld) read(t *testing.T, data *modelBytes, queued int) int {
	t.Helper()
	plan := planRead(data, queued)
	into := make([]roomFor, plan.rooms)
	for i := range into {
		into[i] = newRoom(plan.sizes, plan.control)
	}
	w.conn.SetReadDeadline(time.Now().Add(patience))
	if plan.flags&MsgDontWait != 0 {
		w.conn.WaitReadable(nil) // a busy kernel delivers late
	}
	got, err := plan.call.call(w.conn, into, plan.flags)
	if err != nil || len(got) == 0 || len(got) > min(plan.rooms, queued) || plan.waitsForAll() && len(got) != plan.rooms {
		t.Errorf("%v, %d queued: filled %d, %v", plan, queued, len(got), err)
		return 0
	}
	for i, g := range got {
		want := w.recvmsg(t, newRoom(plan.sizes, plan.control), plan.flags&^(MsgDontWait|MsgWaitAll))
		plan.call.loses(&want)
		plan.call.loses(&g)
		if !g.same(want) {
			t.Errorf("%v, %d queued: message %d is\n%v, want\n%v", plan, queued, i, g, want)
			return 0
		}
	}
	if plan.flags&unix.MSG_PEEK != 0 {
		return 0
	}
	return len(got)
}
