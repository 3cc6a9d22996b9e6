// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"bytes"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/batchconn/batchconn/internal/sys"
)

var (
	peer  = netip.MustParseAddrPort("192.0.2.1:9")
	peer2 = netip.MustParseAddrPort("192.0.2.2:9")
)

// sized makes a message of each size to one destination, in one vector each.
// oldHeaders are what kernels before 5.16 count.
const oldHeaders = 60

func sized(sizes ...int) []OutputMessage {
	msgs := make([]OutputMessage, len(sizes))
	for i, n := range sizes {
		msgs[i] = OutputMessage{Addr: peer, Vectors: [][]byte{make([]byte, n)}}
	}
	return msgs
}

// repeat makes n messages of size bytes, and after them one of each of more.
func repeat(n, size int, more ...int) []OutputMessage {
	return sized(append(slices.Repeat([]int{size}, n), more...)...)
}

// inVectors makes n messages of size bytes in so many vectors.
func inVectors(n, size, vectors int) []OutputMessage {
	msgs := make([]OutputMessage, n)
	for i := range msgs {
		msgs[i] = OutputMessage{Addr: peer, Vectors: vectorsOf(size, vectors)}
	}
	return msgs
}

// with changes message i.
func with(msgs []OutputMessage, i int, change func(m *OutputMessage)) []OutputMessage {
	change(&msgs[i])
	return msgs
}

// sentTo is sized, to an address or, if that is empty, to the connected peer.
func sentTo(addr string, sizes ...int) []OutputMessage {
	var to netip.AddrPort
	if addr != "" {
		to = netip.MustParseAddrPort(addr)
	}
	msgs := sized(sizes...)
	for i := range msgs {
		msgs[i].Addr = to
	}
	return msgs
}

func to(s string) func(m *OutputMessage) {
	return func(m *OutputMessage) { m.Addr = netip.MustParseAddrPort(s) }
}

// TestRun: each limit at its edge and one past it.
func TestRun(t *testing.T) {
	if sys.MaxVectors < maxSegments {
		t.Skip("no segmentation here: a message has fewer vectors than a run datagrams")
	}
	for _, test := range append(sizeCases(), messageCases()...) {
		if got := test.limits.run(test.msgs); got != test.want {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
	}
}

// A runCase says which run the planner makes of the first of some messages.
type runCase struct {
	name   string
	limits segmentLimits
	msgs   []OutputMessage
	want   run
}

// sizeCases are about how many datagrams of which sizes are one run.
func sizeCases() []runCase {
	all := segmentLimits{segments: maxSegments}
	old := segmentLimits{segments: maxSegments, headers: oldHeaders}
	single := run{n: 1}
	return []runCase{
		{"one", all, repeat(1, 100), single},
		{"two", all, repeat(2, 100), run{2, 100}},
		{"off", segmentLimits{}, repeat(9, 100), single},
		{"MaxSegments 1", segmentLimits{segments: 1}, repeat(9, 100), single},
		{"MaxSegments 2", segmentLimits{segments: 2}, repeat(9, 100), run{2, 100}},
		{"MaxSegments 10", segmentLimits{segments: 10}, repeat(10, 100), run{10, 100}},
		{"MaxSegments 10 of 11", segmentLimits{segments: 10}, repeat(11, 100), run{10, 100}},
		{"MaxSegments 10, the last shorter", segmentLimits{segments: 10}, repeat(10, 100, 50), run{10, 100}},

		{"64 full", all, repeat(64, 1000), run{64, 1000}},
		{"65", all, repeat(65, 1000), run{64, 1000}},
		{"64, the last shorter", all, repeat(63, 1000, 940), run{64, 1000}},
		{"65, the last shorter", all, repeat(64, 1000, 1), run{64, 1000}},
		{"of 1", all, repeat(65, 1), run{64, 1}},

		// To old kernels 60 bytes of header count into 64 segments: 63 full
		// ones, or a last that is shorter by as much.
		{"old: 64 full", old, repeat(64, 1000), run{63, 1000}},
		{"old: 64 with the header", old, repeat(63, 1000, 940), run{64, 1000}},
		{"old: 64 and a byte too many", old, repeat(63, 1000, 941), run{63, 1000}},
		{"old: 65", old, repeat(63, 1000, 940, 1), run{64, 1000}},
		{"old: of 60", old, repeat(64, 60), run{63, 60}},
		{"old: of 59", old, repeat(64, 59), run{62, 59}},
		{"old: of 59, the last of 58", old, repeat(62, 59, 58), run{63, 59}},
		{"old: of 2", old, repeat(64, 2), run{34, 2}},
		{"old: of 1", old, repeat(64, 1), run{4, 1}},

		{"65507 bytes", all, repeat(2, 32753, 1), run{3, 32753}},
		{"65508 bytes", all, repeat(2, 32753, 2), run{2, 32753}},
		{"two halves too long", all, repeat(2, 32754), single},
		{"65506 and 1", all, sized(65506, 1), run{2, 65506}},
		{"65506 and 2", all, sized(65506, 2), single},
		{"65507 and 1", all, sized(65507, 1), single},
		{"beyond a datagram", all, repeat(2, 70000), single},

		{"all vectors", all, inVectors(16, 1200, sys.MaxVectors/16), run{16, 1200}},
		{"a vector too many", all, with(inVectors(16, 1200, sys.MaxVectors/16), 15, func(m *OutputMessage) { m.Vectors = append(m.Vectors, nil) }), run{15, 1200}},
		{"all vectors and one", all, append(inVectors(1, 1200, sys.MaxVectors), repeat(1, 1200)...), single},
		{"all vectors but one, and one", all, append(inVectors(1, 1200, sys.MaxVectors-1), repeat(1, 1200)...), run{2, 1200}},
		{"flattened", all, inVectors(2, 1200, sys.MaxVectors+1), single},
		{"then flattened", all, append(repeat(2, 3000), inVectors(1, 3000, sys.MaxVectors+1)...), run{2, 3000}},
	}
}

// messageCases are about what may stand beside what, and what limits say.
func messageCases() []runCase {
	all := segmentLimits{segments: maxSegments}
	single := run{n: 1}
	return []runCase{
		{"empty first", all, sized(0, 0, 5), single},
		{"empty second", all, sized(5, 0, 5), single},
		{"empty later", all, sized(5, 5, 0, 5), run{2, 5}},
		{"empty after a shorter", all, sized(5, 4, 0), run{2, 5}},
		{"no vectors", all, with(repeat(3, 5), 1, func(m *OutputMessage) { m.Vectors = nil }), single},
		{"empty vectors", all, with(repeat(3, 5), 2, func(m *OutputMessage) { m.Vectors = [][]byte{{}, nil} }), run{2, 5}},
		{"longer", all, sized(5, 6), single},
		{"longer later", all, sized(5, 5, 6), run{2, 5}},
		{"shorter last", all, sized(50, 50, 1), run{3, 50}},
		{"shorter second", all, sized(50, 49, 49), run{2, 50}},
		{"shorter in the middle", all, sized(50, 50, 49, 50), run{3, 50}},
		{"sizes over vectors", all, with(repeat(3, 5), 1, func(m *OutputMessage) { m.Vectors = [][]byte{{1}, nil, {2, 3, 4, 5}} }), run{3, 5}},

		{"other address", all, with(repeat(3, 5), 2, to("192.0.2.2:9")), run{2, 5}},
		{"other port", all, with(repeat(3, 5), 1, to("192.0.2.1:10")), single},
		{"mapped", all, with(repeat(3, 5), 2, to("[::ffff:192.0.2.1]:9")), run{2, 5}},
		{"first other", all, with(repeat(3, 5), 0, to("[fe80::1%1]:9")), single},
		{"other zone", all, with(with(with(repeat(3, 5), 0, to("[fe80::1%1]:9")), 1, to("[fe80::1%1]:9")), 2, to("[fe80::1%2]:9")), run{2, 5}},
		{"connected", all, with(with(repeat(2, 5), 0, func(m *OutputMessage) { m.Addr = netip.AddrPort{} }), 1, func(m *OutputMessage) { m.Addr = netip.AddrPort{} }), run{2, 5}},

		{"nil and empty control", all, with(repeat(3, 5), 1, func(m *OutputMessage) { m.Control = []byte{} }), run{3, 5}},
		{"control later", all, with(repeat(3, 5), 2, func(m *OutputMessage) { m.Control = []byte{1} }), run{2, 5}},
		{"control first", all, with(repeat(3, 5), 0, func(m *OutputMessage) { m.Control = []byte{1} }), single},

		{"refused", segmentLimits{segments: 64, tooLarge: 100}, repeat(3, 100), single},
		{"refused smaller", segmentLimits{segments: 64, tooLarge: 99}, repeat(3, 100), single},
		{"refused larger", segmentLimits{segments: 64, tooLarge: 101}, repeat(3, 100), run{3, 100}},
		{"DF over IPv4", segmentLimits{segments: 64, even6: true}, sized(50, 50, 1), run{3, 50}},
		{"DF over mapped IPv4", segmentLimits{segments: 64, even6: true}, sentTo("[::ffff:192.0.2.1]:9", 50, 50, 1), run{3, 50}},
		{"DF over IPv6", segmentLimits{segments: 64, even6: true}, sentTo("[2001:db8::1]:9", 50, 50, 1), run{2, 50}},
		{"DF over IPv6, two", segmentLimits{segments: 64, even6: true}, sentTo("[2001:db8::1]:9", 50, 1), single},
		{"DF, connected", segmentLimits{segments: 64, even6: true}, sentTo("", 50, 50, 1), run{2, 50}},
		{"no DF over IPv6", all, sentTo("[2001:db8::1]:9", 50, 50, 1), run{3, 50}},
		{"paced", segmentLimits{segments: 64, paced: 4 * (1000 + 62)}, repeat(9, 1000), run{4, 1000}},
		{"paced, a byte less", segmentLimits{segments: 64, paced: 4*(1000+62) - 1}, repeat(9, 1000), run{3, 1000}},
		{"paced, two", segmentLimits{segments: 64, paced: 2 * (1000 + 62)}, repeat(9, 1000), run{2, 1000}},
		{"paced, one", segmentLimits{segments: 64, paced: 2*(1000+62) - 1}, repeat(9, 1000), single},
		{"paced, the last shorter", segmentLimits{segments: 64, paced: 3 * (1000 + 62)}, repeat(2, 1000, 1), run{3, 1000}},
		{"paced fast", segmentLimits{segments: 64, paced: 1 << 30}, repeat(64, 1000), run{64, 1000}},
		{"refused any", segmentLimits{segments: 64, tooLarge: 1}, repeat(3, 1), single},
	}
}

// age makes all that g remembers older.
func (g *gso) age(d time.Duration) {
	had := g.refusals.table()
	had.sizes.age(d)
	for i := range had.eio {
		had.eio[i].expires = had.eio[i].expires.Add(-d)
	}
	if s := g.state.Load(); s != nil {
		older := *s
		older.eioUntil = s.eioUntil.Add(-d)
		if !s.retry.IsZero() {
			older.retry = s.retry.Add(-d)
		}
		g.state.Store(&older)
	}
}

// TestEIO: three destinations within a minute turn the socket off.
func TestEIO(t *testing.T) {
	address := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}) }
	eio := func(g *gso, i int) { g.remember(refusal{address(i), 100, syscall.EIO}) }
	var g gso
	eio(&g, 1)
	eio(&g, 2)
	eio(&g, 1)
	eio(&g, 2)
	if s := g.state.Load(); s != nil {
		t.Fatalf("two destinations: %+v", s)
	}
	g.age(59 * time.Second)
	eio(&g, 2) // the first of them is not yet forgotten
	g.age(2 * time.Second)
	eio(&g, 2)
	if s := g.state.Load(); s != nil {
		t.Fatalf("two destinations within a minute: %+v", s)
	}
	eio(&g, 3)
	if s := g.state.Load(); s != nil {
		t.Fatalf("the first of three was more than a minute ago: %+v", s)
	}
	g.age(time.Minute)
	eio(&g, 3)
	g.age(30 * time.Second)
	eio(&g, 4)
	g.age(29 * time.Second)
	if s := g.state.Load(); s != nil {
		t.Fatalf("four destinations, but not within a minute: %+v", s)
	}
	eio(&g, 5)
	if s := g.state.Load(); s == nil || s.disabledReason == "" {
		t.Fatalf("three destinations: %+v", s)
	}
	g.age(59 * time.Minute)
	if g.current() == nil {
		t.Error("tried again before an hour has passed")
	}
	g.age(time.Minute)
	if s := g.current(); s != nil {
		t.Errorf("not tried again after an hour: %+v", s)
	}
}

// Sizes at which something happens, or one byte beside that.
var fuzzSizes = []int{0, 1, 2, 3, 4, 20, 58, 59, 60, 61, 64, 940, 941, 1000, 1023, 1200, 1472, 8000, 16376, 21835, 32753, 32754,
	65447, 65506, 65507, 65508, 65527, 65528, 65535, 65536}

var fuzzVectors = []int{1, 0, 2, 3, 16, 17, 32, 33, 512, 1023, 1024, 1025}

var fuzzPeers = []netip.AddrPort{peer, peer2, netip.MustParseAddrPort("192.0.2.1:10"), netip.MustParseAddrPort("[::ffff:192.0.2.1]:9")}

// fuzzBytes is what fuzzed messages consist of: no two pieces are alike.
var fuzzBytes = func() []byte {
	p := make([]byte, 1<<17)
	x := uint32(1)
	for i := range p {
		x = x*1664525 + 1013904223
		p[i] = byte(x >> 24)
	}
	return p
}()

// fuzzMessages makes a batch of any bytes: four of them are up to 64 messages
// alike, so that runs come about.
func fuzzMessages(data []byte, controls [][]byte) []OutputMessage {
	var msgs []OutputMessage
	vectors, at, total := 0, 0, 0
	for ; len(data) >= 4 && len(msgs) < 1200 && vectors < 20000 && total < 4<<20; data = data[4:] { // more takes seconds
		size := fuzzSizes[int(data[1])%len(fuzzSizes)]
		control := controls[int(data[2]>>2)%len(controls)]
		count := fuzzVectors[int(data[3])%len(fuzzVectors)]
		for range 1 + data[0]%80 {
			if data[2]&0x40 != 0 || at+size > len(fuzzBytes) { // else one behind the other, as cut from one buffer
				at = 7919 * len(msgs) % (len(fuzzBytes) - size)
			}
			m := OutputMessage{Addr: fuzzPeers[data[2]%4], Vectors: fuzzCut(fuzzBytes[at:at+size], count), BytesSent: untouched}
			if data[0]&0x80 != 0 {
				m.Vectors = fuzzCut(fuzzBytes[at:at+size:at+size], count)
			}
			if m.Control = control; data[2]&0x80 != 0 { // the same in another array
				m.Control = bytes.Clone(control)
			}
			msgs = append(msgs, m)
			vectors += count
			at += size
			total += size
		}
	}
	return msgs
}

// fuzzCut cuts p into count vectors, unequal and some of them empty.
func fuzzCut(p []byte, count int) [][]byte {
	if count == 0 && len(p) > 0 {
		count = 1
	}
	vs := make([][]byte, 0, count)
	for i := range count {
		n := len(p)
		if i < count-1 {
			n = len(p) / 2
		}
		vs = append(vs, p[:n])
		p = p[n:]
	}
	return vs
}

// fuzzSeeds are batches from which fuzzing starts.
func fuzzSeeds(f *testing.F, add func(batch []byte)) {
	f.Helper()
	for _, batch := range [][]byte{
		nil,
		{63, 15, 0, 0},                         // a run
		{63, 15, 0, 0, 0, 5, 0, 0},             // the last shorter
		{9, 15, 0, 0, 0, 0, 0, 0, 9, 15, 0, 0}, // an empty one inside
		{79, 13, 0, 0, 0, 11, 0, 0, 79, 13, 1, 0},                              // edge of the headers, another destination
		{1, 20, 0, 0, 0, 1, 0, 0, 1, 21, 0, 0, 1, 24, 1, 0},                    // edge of the length
		{31, 15, 0, 6, 31, 15, 0, 7, 1, 15, 1, 10, 0, 2, 1, 11},                // edge of the vectors
		{9, 15, 4, 0, 9, 15, 8, 0, 9, 15, 0x84, 0, 9, 15, 12, 0, 9, 15, 16, 0}, // control messages
		{79, 15, 0, 0, 79, 15, 0, 0, 79, 15, 0, 0, 79, 5, 1, 0, 79, 5, 2, 0, 79, 5, 3, 0, 79, 5, 3, 0, 79, 1, 2, 0, 79, 1, 2, 0, 79, 1, 1, 0, 79, 15, 1, 0, 79, 15, 1, 0, 79, 15, 1, 0, 79, 14, 1, 0},
	} {
		add(batch)
	}
}

// FuzzRun: a run is the longest that is allowed, and cutting runs gives the
// datagrams of the batch.
func FuzzRun(f *testing.F) {
	fuzzSeeds(f, func(batch []byte) {
		f.Add(batch, 64, 0, 0, false)
		f.Add(batch, 10, 1000, 0, true)
		f.Add(batch, 64, 0, 5000, true)
	})
	f.Fuzz(func(t *testing.T, data []byte, segments, tooLarge, paced int, even bool) {
		limits := segmentLimits{min(segments, maxSegments), tooLarge, len(data) % 2 * oldHeaders, max(0, paced), even}
		msgs := fuzzMessages(data, [][]byte{nil, {}, {1}, {1, 2}})
		for len(msgs) > 0 {
			r := limits.run(msgs)
			want := run{n: 1}
			for n := 2; n <= len(msgs) && mayRun(limits, msgs[:n]); n++ {
				want = run{n, msgs[0].payload()}
			}
			if r != want {
				t.Fatalf("%d messages: run %+v, want %+v", len(msgs), r, want)
			}
			if r.n > 1 {
				checkCut(t, msgs[:r.n], r.size)
			}
			msgs = msgs[r.n:]
		}
	})
}

// mayRun is the rule for a run, said another way than run says it.
func mayRun(l segmentLimits, msgs []OutputMessage) bool {
	size, total, vectors := msgs[0].payload(), 0, 0
	for i := range msgs {
		m := &msgs[i]
		n := m.payload()
		if n == 0 || n > size || n < size && (i < len(msgs)-1 || l.even6 && !m.Addr.Addr().Unmap().Is4()) || m.Addr != msgs[0].Addr || !bytes.Equal(m.Control, msgs[0].Control) {
			return false
		}
		total += n
		vectors += len(m.Vectors)
	}
	return len(msgs) <= l.segments && total <= 65507 && total+l.headers <= 64*size && vectors <= sys.MaxVectors &&
		(l.tooLarge == 0 || size < l.tooLarge) && (l.paced == 0 || len(msgs)*(size+62) <= l.paced) && sys.Segmentable(msgs[0].Control)
}

// checkCut cuts the payload of msgs as the kernel does.
func checkCut(t *testing.T, msgs []OutputMessage, size int) {
	t.Helper()
	var all []byte
	for i := range msgs {
		all = append(all, bytes.Join(msgs[i].Vectors, nil)...)
	}
	i := 0
	for p := range slices.Chunk(all, size) {
		if i == len(msgs) || !bytes.Equal(p, bytes.Join(msgs[i].Vectors, nil)) {
			t.Fatalf("segment %d is not message %d of %d", i, i, len(msgs))
		}
		i++
	}
	if i != len(msgs) {
		t.Fatalf("%d segments of %d messages", i, len(msgs))
	}
}
