// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
)

// A reader is one of the ways that a benchmark of reading compares: read reads
// some of what was sent to it, and says how many datagrams that were.
type reader struct {
	name string
	to   netip.AddrPort
	read func() (int, error)
}

// newReaders opens a socket for each way: a bare one, or a Conn.
func newReader(b *testing.B, name string, cfg *Config, way func(c *Conn, u *net.UDPConn) func() (int, error)) reader {
	u := listenBench(b)
	u.SetReadBuffer(4 << 20)
	var c *Conn
	if cfg != nil {
		var err error
		if c, err = New(u, cfg); err != nil {
			b.Fatal(err)
		}
	}
	return reader{name, addrPortOf(u), way(c, u)}
}

func listenBench(b *testing.B) *net.UDPConn {
	u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { u.Close() })
	return u
}

// benchReads sends bursts to the readers in turn, and reports as medians the ns
// that each takes to read a datagram, and how many times the first one's speed
// it has. Sending is not timed.
func benchReads(b *testing.B, cfg *Config, burst, size int, readers ...reader) {
	out, err := New(listenBench(b), cfg)
	if err != nil {
		b.Fatal(err)
	}
	const bursts = 8 // a turn
	p := make([]byte, burst*size)
	msgs := make([][]OutputMessage, len(readers))
	for k, r := range readers {
		msgs[k] = AppendSegments(nil, r.to, p, size, nil)
	}
	took, times := make([][]float64, len(readers)), make([][]float64, len(readers))
	for i := 0; i < b.N || i < 20*bursts*burst; i += bursts * burst {
		for k, r := range readers {
			var spent time.Duration
			for range bursts {
				if err := sendAll(out, nil, msgs[k]); err != nil {
					b.Fatal(err)
				}
				start := time.Now()
				for n := 0; n < burst; {
					m, err := r.read()
					if err != nil {
						b.Fatal(err)
					}
					n += m
				}
				spent += time.Since(start)
			}
			took[k] = append(took[k], float64(spent)/float64(bursts*burst))
			times[k] = append(times[k], took[0][len(took[0])-1]/took[k][len(took[k])-1])
		}
	}
	median := func(v []float64) float64 { return slices.Sorted(slices.Values(v))[len(v)/2] }
	b.ReportMetric(0, "ns/op")
	for k, r := range readers {
		b.ReportMetric(median(took[k]), "ns-"+r.name)
		if k > 0 {
			b.ReportMetric(median(times[k]), "x-"+r.name)
		}
	}
}

func loopOf(read func(p []byte) (int, netip.AddrPort, error)) func() (int, error) {
	p := make([]byte, 1500)
	return func() (int, error) {
		_, _, err := read(p)
		return 1, err
	}
}

func readMessages(c *Conn, n int) func() (int, error) {
	msgs := make([]InputMessage, n)
	for i := range msgs {
		msgs[i].Vectors = [][]byte{make([]byte, 1500)}
	}
	return func() (int, error) { return c.ReceiveMessages(nil, msgs, 0) }
}

func readBatches(r interface {
	ReadBatch([]ipv4.Message, int) (int, error)
}, n int) func() (int, error) {
	ms := make([]ipv4.Message, n)
	for i := range ms {
		ms[i].Buffers = [][]byte{make([]byte, 1500)}
	}
	return func() (int, error) { return r.ReadBatch(ms, 0) }
}

// BenchmarkReadBursts: what reading costs, by what the sender does.
func BenchmarkReadBursts(b *testing.B) {
	for _, burst := range []int{64, 4} {
		for _, sender := range []GSOMode{GSOAuto, GSOOff} {
			b.Run(fmt.Sprintf("burst=%d/segmenting=%v", burst, sender == GSOAuto), func(b *testing.B) {
				benchReads(b, &Config{GSO: sender}, burst, 1200,
					newReader(b, "Net", nil, func(c *Conn, u *net.UDPConn) func() (int, error) { return loopOf(u.ReadFromUDPAddrPort) }),
					newReader(b, "XNet8", nil, func(c *Conn, u *net.UDPConn) func() (int, error) { return readBatches(ipv4.NewPacketConn(u), 8) }),
					newReader(b, "ReceiveMessages", &Config{}, func(c *Conn, u *net.UDPConn) func() (int, error) { return readMessages(c, 64) }),
					newReader(b, "ReadFromUDPAddrPort", &Config{}, func(c *Conn, u *net.UDPConn) func() (int, error) { return loopOf(c.ReadFromUDPAddrPort) }),
					newReader(b, "ReadBatch8", &Config{}, func(c *Conn, u *net.UDPConn) func() (int, error) { return readBatches(c, 8) }),
				)
			})
		}
	}
}

// BenchmarkReadPingPong: one datagram in flight. The first is a bare conn, the
// second a Conn whose queue never was deep, the third one whose queue was, and
// the last one that coalesces throughout.
func BenchmarkReadPingPong(b *testing.B) {
	var games []sibling
	for i, name := range []string{"Net", "Conn", "AfterBulk", "GROOn"} {
		u := listenBench(b)
		var in interface {
			ReadFromUDPAddrPort([]byte) (int, netip.AddrPort, error)
		} = u
		var c *Conn
		if i > 0 {
			cfg := &Config{}
			if i == 3 {
				cfg.GRO = GROOn
			}
			var err error
			if c, err = New(u, cfg); err != nil {
				b.Fatal(err)
			}
			in = c
		}
		if i == 2 {
			out := connOf(benchConn(b, nil))
			makeDeep(b, c, out, addrPortOf(u))
		}
		peer := listenBench(b)
		go sendBack(peer)
		to := addrPortOf(peer)
		p, buf := make([]byte, 1200), make([]byte, 2048)
		games = append(games, sibling{name, 64, func() error {
			for range 32 {
				if _, err := u.WriteToUDPAddrPort(p, to); err != nil {
					return err
				}
				if _, _, err := in.ReadFromUDPAddrPort(buf); err != nil {
					return err
				}
			}
			return nil
		}})
		if i == 1 {
			b.Cleanup(func() {
				if c.recv.gro.on {
					b.Log("coalescing was turned on")
				}
			})
		}
	}
	alternate(b, games...)
}
