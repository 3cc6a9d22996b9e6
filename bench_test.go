// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/net/ipv4"
)

// sinks opens receivers that nobody reads: the kernel drops what does not fit,
// at the same cost for every sibling.
func sinks(b *testing.B, n int) []netip.AddrPort {
	b.Helper()
	addrs := make([]netip.AddrPort, n)
	for i := range addrs {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { c.Close() })
		addrs[i] = c.LocalAddr().(*net.UDPAddr).AddrPort()
	}
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

func sendAll(c *Conn, ctx context.Context, msgs []OutputMessage) error {
	n, err := c.SendMessages(ctx, msgs, 0)
	if err == nil && n != len(msgs) {
		return fmt.Errorf("sent %d of %d", n, len(msgs))
	}
	return err
}

func writeAll(w interface {
	WriteBatch([]ipv4.Message, int) (int, error)
}, ms []ipv4.Message) error {
	for len(ms) > 0 {
		n, err := w.WriteBatch(ms, 0)
		if err != nil {
			return err
		}
		ms = ms[n:]
	}
	return nil
}

// BenchmarkFanOut: 64 receivers, 64 messages a call, one each: nothing to
// coalesce.
func BenchmarkFanOut(b *testing.B) {
	addrs := sinks(b, 64)
	c, u := benchConn(b, nil)
	msgs, ms := messagesTo(addrs, 64, 1200)
	pc := ipv4.NewPacketConn(u)
	b.Run("Net", func(b *testing.B) {
		p := make([]byte, 1200)
		i := 0
		perMessage(b, 1, func() error {
			_, err := u.WriteToUDPAddrPort(p, addrs[i%64])
			i++
			return err
		})
	})
	b.Run("XNet", func(b *testing.B) { perMessage(b, 64, func() error { return writeAll(pc, ms) }) })
	b.Run("SendMessages", func(b *testing.B) { perMessage(b, 64, func() error { return sendAll(c, nil, msgs) }) })
	b.Run("SendEach", func(b *testing.B) {
		perMessage(b, 64, func() error { _, err := c.SendEach(nil, msgs, 0); return err })
	})
	b.Run("WriteBatch", func(b *testing.B) { perMessage(b, 64, func() error { return writeAll(c, ms) }) })
}

// BenchmarkShared: two goroutines on one socket, each to its own receiver.
func BenchmarkShared(b *testing.B) {
	addrs := sinks(b, 2)
	c, u := benchConn(b, &Config{GSO: GSOOff})
	pc := ipv4.NewPacketConn(u)
	shared := func(b *testing.B, send func(g int) func() error) {
		var wg sync.WaitGroup
		for g := range 2 {
			f := send(g)
			wg.Go(func() {
				for i := 0; i < b.N; i += 2 * 64 {
					if err := f(); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	b.Run("XNet", func(b *testing.B) {
		shared(b, func(g int) func() error {
			_, ms := messagesTo(addrs[g:g+1], 64, 1200)
			return func() error { return writeAll(pc, ms) }
		})
	})
	b.Run("SendMessages", func(b *testing.B) {
		shared(b, func(g int) func() error {
			msgs, _ := messagesTo(addrs[g:g+1], 64, 1200)
			return func() error { return sendAll(c, nil, msgs) }
		})
	})
}

// BenchmarkSingle: one datagram a call through the net method.
func BenchmarkSingle(b *testing.B) {
	addrs := sinks(b, 1)
	c, u := benchConn(b, nil)
	to := net.UDPAddrFromAddrPort(addrs[0])
	p := make([]byte, 1200)
	b.Run("Net", func(b *testing.B) { perMessage(b, 1, func() error { _, err := u.WriteTo(p, to); return err }) })
	b.Run("Conn", func(b *testing.B) { perMessage(b, 1, func() error { _, err := c.WriteTo(p, to); return err }) })
	b.Run("SendTo", func(b *testing.B) {
		perMessage(b, 1, func() error { _, err := c.SendTo(nil, p, addrs[0], 0); return err })
	})
}

// BenchmarkBatchSize: the cost of a message does not depend on how many there
// are in a call.
func BenchmarkBatchSize(b *testing.B) {
	addrs := sinks(b, 16)
	c, _ := benchConn(b, &Config{GSO: GSOOff})
	for _, n := range []int{1, 4, 16, 64, 256, 1024, 4096, 16384} {
		msgs, _ := messagesTo(addrs, n, 1200)
		b.Run(fmt.Sprint(n), func(b *testing.B) { perMessage(b, n, func() error { return sendAll(c, nil, msgs) }) })
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
	b.Run("XNet", func(b *testing.B) { perMessage(b, n, func() error { return writeAll(pc, ms) }) })
	b.Run("GSOOff", func(b *testing.B) { perMessage(b, n, func() error { return sendAll(plain, nil, msgs) }) })
	b.Run("SendMessages", func(b *testing.B) { perMessage(b, n, func() error { return sendAll(c, nil, msgs) }) })
	b.Run("SendEach", func(b *testing.B) {
		perMessage(b, n, func() error { _, err := c.SendEach(nil, msgs, 0); return err })
	})
	b.Run("WriteBatch", func(b *testing.B) { perMessage(b, n, func() error { return writeAll(c, ms) }) })
	b.Run("HandMade", func(b *testing.B) {
		if whyNot := c.Stats().GSOReason; whyNot != "" {
			b.Skip(whyNot)
		}
		made := handMade(msgs, burst)
		perMessage(b, n, func() error { return writeAll(pc, made) })
	})
	b.Run("AppendSegments", func(b *testing.B) {
		perMessage(b, n, func() error {
			msgs = msgs[:0]
			for i := range n / burst {
				msgs = AppendSegments(msgs, addrs[i%receivers], buf, 1200, nil)
			}
			return sendAll(c, nil, msgs)
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
		m := ipv4.Message{Addr: net.UDPAddrFromAddrPort(msgs[0].Addr), OOB: appendSegmentControl(nil, 1200, nil)}
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
		b.Run(test.name+"/GSOOff", func(b *testing.B) { perMessage(b, 64, func() error { return sendAll(off, nil, test.msgs) }) })
		b.Run(test.name+"/GSOAuto", func(b *testing.B) { perMessage(b, 64, func() error { return sendAll(auto, nil, test.msgs) }) })
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
				bt := newBatch()
				defer bt.free()
				bt.segments = segments
				perMessage(b, 64, func() error {
					bt.fill(c, test.msgs, 0)
					return nil
				})
			})
		}
	}
}

// BenchmarkPingPong: one datagram in flight at a time, to a peer that sends it
// back the same way.
func BenchmarkPingPong(b *testing.B) {
	pingPong := func(b *testing.B, wrap func(*Conn) net.PacketConn) {
		near, far := wrap(connOf(benchConn(b, nil))), wrap(connOf(benchConn(b, nil)))
		go func() {
			buf := make([]byte, 2048)
			for {
				n, from, err := far.ReadFrom(buf)
				if err != nil {
					return
				}
				far.WriteTo(buf[:n], from)
			}
		}()
		p, buf := make([]byte, 1200), make([]byte, 2048)
		b.ResetTimer()
		perMessage(b, 1, func() error {
			if _, err := near.WriteTo(p, far.LocalAddr()); err != nil {
				return err
			}
			_, _, err := near.ReadFrom(buf)
			return err
		})
	}
	compare(b, "1200",
		func(b *testing.B) { pingPong(b, func(c *Conn) net.PacketConn { return c }) },
		func(b *testing.B) { pingPong(b, func(c *Conn) net.PacketConn { return NewWriter(c, nil) }) })
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
