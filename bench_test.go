// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/batchconn/batchconn/internal/harness"
	"github.com/batchconn/batchconn/internal/sys"
)

// sinks opens receivers that nobody reads.
func sinks(b *testing.B, n int) []netip.AddrPort {
	b.Helper()
	addrs, closeAll, err := harness.Sinks(n)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(closeAll)
	return addrs
}

func benchConn(b *testing.B, cfg *Config) (*Conn, *net.UDPConn) {
	b.Helper()
	u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	c, err := New(u, cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c, u
}

// messagesTo makes n messages of size bytes, to the addresses in turn.
func messagesTo(addrs []netip.AddrPort, n, size int) ([]OutputMessage, []ipv4.Message) {
	p := make([]byte, size)
	msgs := make([]OutputMessage, n)
	ms := make([]ipv4.Message, n)
	for i := range msgs {
		to := addrs[i%len(addrs)]
		msgs[i] = OutputMessage{Addr: to, Vectors: [][]byte{p}}
		ms[i] = ipv4.Message{Addr: net.UDPAddrFromAddrPort(to), Buffers: [][]byte{p}}
	}
	return msgs, ms
}

// perMessage runs f, which sends n messages, until b.N messages are sent.
func perMessage(b *testing.B, n int, f func() error) {
	b.ReportAllocs()
	for i := 0; i < b.N; i += n {
		if err := f(); err != nil {
			b.Fatal(err)
		}
	}
}

// A sibling is one of the ways that a benchmark compares: each call of send
// sends n datagrams.
type sibling struct {
	name string
	n    int
	send func() error
}

// alternate lets siblings take turns of a few milliseconds, so that what else
// the machine does meets all alike. It reports, as the median of the turns, the
// ns of a datagram, and how many times the first one's each takes.
func alternate(b *testing.B, siblings ...sibling) {
	b.Helper()
	const turn = 1024
	rounds := 1 + (b.N-1)/(turn*len(siblings))
	took := make([][]float64, len(siblings))
	err := harness.Alternate(rounds, len(siblings), func(_, k int) error {
		s, start, sent := siblings[k], time.Now(), 0
		for ; sent < turn; sent += s.n {
			if err := s.send(); err != nil {
				return err
			}
		}
		took[k] = append(took[k], float64(time.Since(start))/float64(sent))
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	for k, s := range siblings {
		b.ReportMetric(harness.Median(took[k]), "ns-"+s.name)
		if k == 0 {
			continue
		}
		times := make([]float64, rounds)
		for round := range times {
			times[round] = took[k][round] / took[0][round]
		}
		b.ReportMetric(harness.Median(times), "x-"+s.name)
	}
}

// BenchmarkFanOut: 64 receivers, 64 messages a call, one each: nothing to
// coalesce.
func BenchmarkFanOut(b *testing.B) {
	addrs := sinks(b, 64)
	c, u := benchConn(b, nil)
	msgs, ms := messagesTo(addrs, 64, 1200)
	pc := ipv4.NewPacketConn(u)
	p, i := make([]byte, 1200), 0
	alternate(b,
		sibling{"XNet", 64, func() error { return harness.WriteAll(pc, ms) }},
		sibling{"Net", 1, func() error {
			_, err := u.WriteToUDPAddrPort(p, addrs[i%64])
			i++
			return err
		}},
		sibling{"SendMessages", 64, func() error { return harness.SendAll(c, nil, msgs) }},
		sibling{"SendEach", 64, func() error { _, err := c.SendEach(nil, msgs, 0); return err }},
		sibling{"WriteBatch", 64, func() error { return harness.WriteAll(c, ms) }},
	)
}

// BenchmarkShared: two goroutines on one socket, each to its own receiver.
func BenchmarkShared(b *testing.B) {
	const batches = 16
	addrs := sinks(b, 2)
	c, u := benchConn(b, &Config{GSO: GSOOff})
	pc := ipv4.NewPacketConn(u)
	shared := func(send func(msgs []OutputMessage, ms []ipv4.Message) error) func() error {
		var msgs [2][]OutputMessage
		var ms [2][]ipv4.Message
		for g := range addrs {
			msgs[g], ms[g] = messagesTo(addrs[g:g+1], 64, 1200)
		}
		return func() error {
			var errs [2]error
			var wg sync.WaitGroup
			for g := range addrs {
				wg.Go(func() {
					for range batches {
						errs[g] = errors.Join(errs[g], send(msgs[g], ms[g]))
					}
				})
			}
			wg.Wait()
			return errors.Join(errs[:]...)
		}
	}
	alternate(b,
		sibling{"XNet", 2 * 64 * batches, shared(func(_ []OutputMessage, ms []ipv4.Message) error { return harness.WriteAll(pc, ms) })},
		sibling{"SendMessages", 2 * 64 * batches, shared(func(msgs []OutputMessage, _ []ipv4.Message) error { return harness.SendAll(c, nil, msgs) })},
	)
}

// BenchmarkSingle: one datagram a call.
func BenchmarkSingle(b *testing.B) {
	addrs := sinks(b, 1)
	c, u := benchConn(b, nil)
	to := net.UDPAddrFromAddrPort(addrs[0])
	p := make([]byte, 1200)
	alternate(b,
		sibling{"Net", 1, func() error { _, err := u.WriteTo(p, to); return err }},
		sibling{"Conn", 1, func() error { _, err := c.WriteTo(p, to); return err }},
		sibling{"SendTo", 1, func() error { _, err := c.SendTo(nil, p, addrs[0], 0); return err }},
	)
}

// BenchmarkBatchSize: the cost of a message does not depend on how many there
// are in a call, except for its share of the system call. All go through the
// same messages, since those of a large call do not stay in the processor's
// caches, whatever sends them.
func BenchmarkBatchSize(b *testing.B) {
	const maxMessages = 16384
	addrs := sinks(b, 16)
	c, u := benchConn(b, &Config{GSO: GSOOff})
	pc := ipv4.NewPacketConn(u)
	msgs, ms := messagesTo(addrs, maxMessages, 1200)
	for _, way := range []struct {
		name string
		send func(i, n int) error
	}{
		{"XNet", func(i, n int) error { return harness.WriteAll(pc, ms[i:i+n]) }},
		{"SendMessages", func(i, n int) error { return harness.SendAll(c, nil, msgs[i:i+n]) }},
	} {
		b.Run(way.name, func(b *testing.B) {
			var sizes []sibling
			for _, n := range []int{64, 1, 4, 16, 256, 1024, 4096, maxMessages} {
				at := 0
				sizes = append(sizes, sibling{fmt.Sprint(n), n, func() error {
					i := at
					at = (at + n) % maxMessages
					return way.send(i, n)
				}})
			}
			alternate(b, sizes...)
		})
	}
}

// BenchmarkOneReceiver: what segmentation is for.
func BenchmarkOneReceiver(b *testing.B) {
	benchBursts(b, 1, 64, 64)
}

// BenchmarkBursts: 16 destinations, 8 messages in a row to each.
func BenchmarkBursts(b *testing.B) {
	benchBursts(b, 16, 128, 8)
}

// benchBursts sends n messages a call, burst in a row to each receiver.
func benchBursts(b *testing.B, receivers, n, burst int) {
	addrs := sinks(b, receivers)
	c, u := benchConn(b, nil)
	plain, _ := benchConn(b, &Config{GSO: GSOOff})
	pc := ipv4.NewPacketConn(u)
	buf := make([]byte, burst*1200)
	var msgs []OutputMessage
	for i := range n / burst {
		msgs = AppendSegments(msgs, addrs[i%receivers], buf, 1200, nil)
	}
	ms := make([]ipv4.Message, n)
	for i := range ms {
		ms[i] = ipv4.Message{Addr: net.UDPAddrFromAddrPort(msgs[i].Addr), Buffers: msgs[i].Vectors}
	}
	b.Run("Net", func(b *testing.B) {
		i := 0
		perMessage(b, 1, func() error {
			_, err := u.WriteToUDPAddrPort(buf[:1200], msgs[i%n].Addr)
			i++
			return err
		})
	})
	b.Run("XNet", func(b *testing.B) { perMessage(b, n, func() error { return harness.WriteAll(pc, ms) }) })
	b.Run("GSOOff", func(b *testing.B) { perMessage(b, n, func() error { return harness.SendAll(plain, nil, msgs) }) })
	b.Run("SendMessages", func(b *testing.B) { perMessage(b, n, func() error { return harness.SendAll(c, nil, msgs) }) })
	b.Run("SendEach", func(b *testing.B) {
		perMessage(b, n, func() error { _, err := c.SendEach(nil, msgs, 0); return err })
	})
	b.Run("WriteBatch", func(b *testing.B) { perMessage(b, n, func() error { return harness.WriteAll(c, ms) }) })
	b.Run("HandMade", func(b *testing.B) {
		if reason := c.Stats().GSOReason; reason != "" {
			b.Skip(reason)
		}
		made := handMade(msgs, burst)
		perMessage(b, n, func() error { return harness.WriteAll(pc, made) })
	})
	b.Run("AppendSegments", func(b *testing.B) {
		perMessage(b, n, func() error {
			msgs = msgs[:0]
			for i := range n / burst {
				msgs = AppendSegments(msgs, addrs[i%receivers], buf, 1200, nil)
			}
			return harness.SendAll(c, nil, msgs)
		})
	})
}

// BenchmarkWriteLoop: an unchanged WriteTo loop, to receivers in turn. x-net is
// how many times the bare loop's speed.
func BenchmarkWriteLoop(b *testing.B) {
	for _, receivers := range []int{1, 64} {
		addrs := sinks(b, receivers)
		to := make([]net.Addr, receivers)
		for i := range to {
			to[i] = net.UDPAddrFromAddrPort(addrs[i])
		}
		c, u := benchConn(b, nil)
		w := NewWriter(c, nil)
		loop := func(b *testing.B, conn net.PacketConn) {
			p := make([]byte, 1200)
			i := 0
			perMessage(b, 1, func() error {
				_, err := conn.WriteTo(p, to[i%receivers])
				i++
				return err
			})
		}
		compare(b, fmt.Sprint(receivers), func(b *testing.B) { loop(b, u) }, func(b *testing.B) {
			loop(b, w)
			if err := w.Flush(context.Background()); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// handMade makes segmented messages as one would by hand for x/net, of burst
// messages each or as many of 1200 bytes as fit.
func handMade(msgs []OutputMessage, burst int) (made []ipv4.Message) {
	for len(msgs) > 0 {
		n := min(burst, len(msgs), maxSegmented/1200)
		m := ipv4.Message{Addr: net.UDPAddrFromAddrPort(msgs[0].Addr), OOB: sys.AppendSegmentControl(nil, 1200, nil)}
		for i := range msgs[:n] {
			m.Buffers = append(m.Buffers, msgs[i].Vectors...)
		}
		made = append(made, m)
		msgs = msgs[n:]
		if burst > n {
			burst -= n
		}
	}
	return made
}

// BenchmarkNoRuns: what segmentation costs where there is nothing to coalesce.
func BenchmarkNoRuns(b *testing.B) {
	addrs := sinks(b, 64)
	auto, _ := benchConn(b, nil)
	off, _ := benchConn(b, &Config{GSO: GSOOff})
	destinations, _ := messagesTo(addrs, 64, 1200)
	sizes, _ := messagesTo(addrs[:1], 64, 1200)
	for i := range sizes {
		sizes[i].Vectors = [][]byte{make([]byte, 1000+i)}
	}
	for _, test := range []struct {
		name string
		msgs []OutputMessage
	}{{"Destinations", destinations}, {"Sizes", sizes}} {
		b.Run(test.name+"/GSOOff", func(b *testing.B) { perMessage(b, 64, func() error { return harness.SendAll(off, nil, test.msgs) }) })
		b.Run(test.name+"/GSOAuto", func(b *testing.B) { perMessage(b, 64, func() error { return harness.SendAll(auto, nil, test.msgs) }) })
		if auto.Stats().Segmented != 0 {
			b.Error("something was coalesced")
		}
	}
}

// BenchmarkPlan: finding runs, and all of what makes kernel messages of them.
func BenchmarkPlan(b *testing.B) {
	c, _ := benchConn(b, nil)
	one, _ := messagesTo([]netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9")}, 64, 1200)
	inTurn, _ := messagesTo([]netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9"), netip.MustParseAddrPort("127.0.0.1:10")}, 64, 1200)
	for _, test := range []struct {
		name string
		msgs []OutputMessage
	}{{"OneReceiver", one}, {"NoRuns", inTurn}} {
		b.Run(test.name+"/Run", func(b *testing.B) {
			limits := segmentLimits{segments: maxSegments}
			perMessage(b, 64, func() error {
				for msgs := test.msgs; len(msgs) > 0; {
					msgs = msgs[limits.run(msgs).n:]
				}
				return nil
			})
		})
		for _, segments := range []int{0, maxSegments} {
			if segments > 0 && !c.Stats().GSO {
				continue
			}
			b.Run(fmt.Sprintf("%s/Fill%d", test.name, segments), func(b *testing.B) {
				bt := newOutBatch()
				defer bt.free()
				p := plan{to: &c.send.to, refusals: &c.send.gso.refusals, limits: segmentLimits{segments: segments, headers: sys.CountedHeaders}}
				perMessage(b, 64, func() error {
					return bt.fill(&p, test.msgs)
				})
			})
		}
	}
}

// BenchmarkPingPong: one datagram in flight at a time, to a peer that sends it
// back; with a Writer at no end, at one, at both.
func BenchmarkPingPong(b *testing.B) {
	var games []sibling
	for writers, name := range []string{"bare", "one-end", "both-ends"} {
		ends := make([]net.PacketConn, 2)
		for i := range ends {
			c := connOf(benchConn(b, nil))
			if ends[i] = c; i < writers {
				ends[i] = NewWriter(c, nil)
			}
		}
		go sendBack(ends[1])
		p, buf := make([]byte, 1200), make([]byte, 2048)
		games = append(games, sibling{name, 64, func() error { // the shorter the turns, the more alike
			for range 32 {
				if _, err := ends[0].WriteTo(p, ends[1].LocalAddr()); err != nil {
					return err
				}
				if _, _, err := ends[0].ReadFrom(buf); err != nil {
					return err
				}
			}
			return nil
		}})
	}
	alternate(b, games...)
}

func sendBack(c net.PacketConn) {
	buf := make([]byte, 2048)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		c.WriteTo(buf[:n], from)
	}
}

func connOf(c *Conn, _ *net.UDPConn) *Conn { return c }

// compare runs two siblings and says how many times the first's speed the
// second has.
func compare(b *testing.B, name string, bare, writer func(b *testing.B)) {
	perOp := func(b *testing.B) float64 { return float64(b.Elapsed()) / float64(b.N) }
	var base float64
	b.Run(name+"/Net", func(b *testing.B) {
		bare(b)
		base = perOp(b)
	})
	b.Run(name+"/Writer", func(b *testing.B) {
		writer(b)
		if base > 0 {
			b.ReportMetric(base/perOp(b), "x-net")
		}
	})
}
