// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package interop

import (
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/batchconn/batchconn"
	"github.com/batchconn/batchconn/internal/netns"
	"github.com/pion/ice/v4"
)

// fullKinds are what a mux does on a socket that has become full.
var fullKinds = []struct {
	kind
	stalls bool // a write to any peer waits
}{
	{kind{"bare", func(_ testing.TB, c *net.UDPConn, _ func(netip.AddrPort, error)) net.PacketConn { return c }}, true},
	{kind{"non-blocking conn", func(t testing.TB, c *net.UDPConn, _ func(netip.AddrPort, error)) net.PacketConn {
		return newConn(t, c, &batchconn.Config{NonBlocking: true})
	}}, false},
	{kind{"non-blocking writer", func(t testing.TB, c *net.UDPConn, _ func(netip.AddrPort, error)) net.PacketConn {
		conn := newConn(t, c, &batchconn.Config{NonBlocking: true})
		return batchconn.NewWriter(conn, &batchconn.WriterConfig{MaxBytes: 8 << 10}) // what is held delays all
	}}, false},
}

// TestMuxFull floods one peer of a mux until the socket is full, and looks how
// another fares: on a bare conn its write waits; on a non-blocking one each
// write is taken or refused at once, and both ways go on when there is room.
func TestMuxFull(t *testing.T) {
	netns.Run(t, func(t *testing.T, ns *netns.Namespace) {
		lo := ns.Loopback()
		for _, k := range fullKinds {
			t.Run(k.name, func(t *testing.T) {
				noLeaks(t)
				m := newFullMux(t, k.kind)
				// The burst, and then nothing for minutes.
				netns.Check(t, lo.SetBucket(netns.Bucket{Rate: 1, Burst: 2 << 10, Limit: 1 << 20}))
				m.flood(t)
				m.writeMany(t, k.stalls)
				// 1 Mbit/s, which the flood more than fills.
				netns.Check(t, lo.SetBucket(netns.Bucket{Rate: 125_000, Burst: 2 << 10, Limit: 1 << 20}))
				if k.stalls {
					defer m.writeBeside(t)()
				} else {
					start := time.Now()
					m.echo(t, echoes)
					t.Logf("%d echoes beside a flood of 1 Mbit/s: %v", echoes, time.Since(start))
				}
				netns.Check(t, lo.RemoveBucket())
				m.stop(t)
				m.echo(t, echoes)
			})
		}
	})
}

// echoes is how often another peer speaks and is answered.
const echoes = 2

// A fullMux is a mux with two peers, a and b.
type fullMux struct {
	mux          *ice.UDPMuxDefault
	a, b         net.PacketConn // the mux's
	peerA, peerB *net.UDPConn
	stopping     atomic.Bool
	stopped      chan error
	refused      atomic.Int64 // writes to a
}

func newFullMux(t *testing.T, k kind) *fullMux {
	t.Helper()
	m := &fullMux{peerA: loopback.listen(t, far), peerB: loopback.listen(t, far), stopped: make(chan error, 4)}
	c := loopback.newSocket(t, near)
	c.SetWriteBuffer(4608) // a few datagrams
	m.mux = ice.NewUDPMuxDefault(ice.UDPMuxParams{UDPConn: k.wrap(t, c, nil)})
	t.Cleanup(func() { m.mux.Close() })
	var err error
	if m.a, err = m.mux.GetConn("a", m.mux.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	if m.b, err = m.mux.GetConn("b", m.mux.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	return m
}

// writeMany writes to b on a full socket, and checks whether that waits.
func (m *fullMux) writeMany(t *testing.T, stalls bool) {
	t.Helper()
	var enough atomic.Bool
	done := make(chan error, 1)
	go func() {
		for range 1000 {
			if _, err := m.b.WriteTo([]byte("b"), m.peerB.LocalAddr()); err != nil && !errors.Is(err, batchconn.ErrWouldBlock) {
				done <- err
				return
			}
			if enough.Load() {
				break
			}
		}
		done <- nil
	}()
	grace := patience / 2
	if stalls {
		grace = 300 * time.Millisecond
	}
	select {
	case err := <-done:
		if stalls || err != nil {
			t.Errorf("a thousand writes to another peer of a full socket returned, the last with %v", err)
		}
	case <-time.After(grace):
		enough.Store(true)
		if !stalls {
			t.Error("a write to another peer waits")
		}
	}
}

// writeBeside writes to b beside the flood and says how long that takes, if it
// ends soon: goroutines that flood can take the descriptor's lock again and
// again. It returns what waits for the write.
func (m *fullMux) writeBeside(t *testing.T) (wait func()) {
	t.Helper()
	const limit = 3 * time.Second
	done := make(chan error, 1)
	start := time.Now()
	go func() {
		_, err := m.b.WriteTo([]byte("b"), m.peerB.LocalAddr())
		done <- err
	}()
	check := func(err error) {
		if err != nil {
			t.Errorf("a write beside a flood: %v", err)
		}
	}
	select {
	case err := <-done:
		t.Logf("a write beside a flood of 1 Mbit/s: %v", time.Since(start))
		check(err)
		return func() {}
	case <-time.After(limit):
		t.Logf("a write beside a flood of 1 Mbit/s: more than %v", limit)
		return func() { check(<-done) }
	}
}

// flood writes to a without end, and returns once the socket is full: a write
// waits or was refused.
func (m *fullMux) flood(t *testing.T) {
	t.Helper()
	var written atomic.Int64
	for range cap(m.stopped) {
		go func() {
			packet := noise(30, 1000)
			for !m.stopping.Load() {
				_, err := m.a.WriteTo(packet, m.peerA.LocalAddr())
				switch {
				case err == nil:
					written.Add(1)
				case errors.Is(err, batchconn.ErrWouldBlock):
					m.refused.Add(1)
					time.Sleep(100 * time.Microsecond) // others want the processor too
				default:
					m.stopped <- err
					return
				}
			}
			m.stopped <- nil
		}()
	}
	for before := int64(-1); m.refused.Load() == 0; time.Sleep(50 * time.Millisecond) {
		if now := written.Load(); now == before && now > 0 {
			return // none got through for a while
		} else {
			before = now
		}
	}
}

// echo has b's peer speak to the mux and get an answer, n times; an answer that
// the full socket refuses is tried again, as its user would.
func (m *fullMux) echo(t *testing.T, n int) {
	t.Helper()
	buf := make([]byte, 1<<13)
	for i := range n {
		if _, err := m.peerB.WriteTo([]byte{'e', byte(i)}, m.mux.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		k, from, err := m.b.ReadFrom(buf)
		if err != nil || k != 2 || buf[1] != byte(i) {
			t.Fatalf("echo %d: the mux read %q, %v", i, buf[:k], err)
		}
		for end := time.Now().Add(patience / 2); ; time.Sleep(100 * time.Microsecond) {
			if _, err = m.b.WriteTo(buf[:k], from); err == nil {
				break
			}
			if !errors.Is(err, batchconn.ErrWouldBlock) || time.Now().After(end) {
				t.Fatalf("echo %d: %v", i, err)
			}
		}
		m.expect(t, string(buf[:k]))
	}
}

// expect waits until a datagram arrives at b's peer.
func (m *fullMux) expect(t *testing.T, want string) {
	t.Helper()
	buf := make([]byte, 1<<13)
	for {
		m.peerB.SetReadDeadline(time.Now().Add(patience / 2))
		n, err := m.peerB.Read(buf)
		if err != nil {
			t.Fatalf("b's peer waits for %q: %v", want, err)
		}
		if string(buf[:n]) == want {
			return
		}
	}
}

// stop ends the flood.
func (m *fullMux) stop(t *testing.T) {
	t.Helper()
	m.stopping.Store(true)
	for range cap(m.stopped) {
		if err := <-m.stopped; err != nil {
			t.Errorf("a write to the flooded peer: %v", err)
		}
	}
}
