// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package interop

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/pion/stun/v4"
	"github.com/pion/turn/v5"
	"golang.org/x/sync/errgroup"
)

// runSTUN asks for addresses.
func runSTUN(t *testing.T, s site) cost {
	server := s.open(t, far)
	go serveSTUN(server)
	return askAll(t, 8, scaled(20_000)/8, func(int) func(int) error {
		c := s.dial(t, near, server.LocalAddr())
		client, err := stun.NewClient(c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		return func(int) (err error) {
			var got stun.XORMappedAddress
			done := func(e stun.Event) {
				if err = e.Error; err == nil {
					err = got.GetFrom(e.Message)
				}
			}
			if err := client.Do(stun.MustBuild(stun.TransactionID, stun.BindingRequest), done); err != nil {
				return err
			}
			if err == nil && got.String() != c.LocalAddr().String() {
				err = fmt.Errorf("told %v, am at %v", got, c.LocalAddr())
			}
			return err
		}
	})
}

func serveSTUN(c net.PacketConn) {
	b := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		request := &stun.Message{Raw: b[:n]}
		if request.Decode() != nil {
			continue
		}
		addr := from.(*net.UDPAddr)
		answer := stun.MustBuild(request, stun.BindingSuccess, &stun.XORMappedAddress{IP: addr.IP, Port: addr.Port}, stun.Fingerprint)
		c.WriteTo(answer.Raw, from)
	}
}

// relayGenerator opens the relay's own connections.
type relayGenerator struct {
	t *testing.T
	s site
}

func (relayGenerator) Validate() error { return nil }

func (g relayGenerator) AllocatePacketConn(turn.AllocateListenerConfig) (net.PacketConn, net.Addr, error) {
	c := g.s.wrap(g.t, g.s.newSocket(g.t, far), nil) // which the server closes
	return c, c.LocalAddr(), nil
}

func (relayGenerator) AllocateListener(turn.AllocateListenerConfig) (net.Listener, net.Addr, error) {
	return nil, nil, net.ErrClosed
}

func (relayGenerator) AllocateConn(turn.AllocateConnConfig) (net.Conn, error) {
	return nil, net.ErrClosed
}

const (
	turnPacket = 1000
	turnWindow = 32 // packets under way in each direction
)

// turnPackets is how many go each way.
func turnPackets() int { return scaled(10_000) }

// runTURN sends both ways at once between a client of a relay and a peer.
func runTURN(t *testing.T, s site) cost {
	relayed, peer := allocateRelay(t, s), s.open(t, near)
	// The first packets open the way: a permission, and a channel soon.
	greet(t, relayed, peer, peer.LocalAddr())
	greet(t, peer, relayed, relayed.LocalAddr())
	start := begin()
	var g errgroup.Group
	forth, back := make(chan struct{}, turnWindow), make(chan struct{}, turnWindow)
	g.Go(func() error { return writePackets(relayed, peer.LocalAddr(), 60, forth) })
	g.Go(func() error { return readPackets(peer, relayed.LocalAddr(), 60, forth) })
	g.Go(func() error { return writePackets(peer, relayed.LocalAddr(), 61, back) })
	g.Go(func() error { return readPackets(relayed, peer.LocalAddr(), 61, back) })
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return start.cost()
}

func allocateRelay(t *testing.T, s site) net.PacketConn {
	t.Helper()
	const realm, user, password = "interop", "user", "password"
	key := turn.GenerateAuthKey(user, realm, password)
	at := s.open(t, far)
	server, err := turn.NewServer(turn.ServerConfig{
		Realm:             realm,
		AuthHandler:       func(*turn.RequestAttributes) (string, []byte, bool) { return user, key, true },
		PacketConnConfigs: []turn.PacketConnConfig{{PacketConn: at, RelayAddressGenerator: relayGenerator{t, s}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	client, err := turn.NewClient(&turn.ClientConfig{
		TURNServerAddr: at.LocalAddr().String(), Conn: s.open(t, near), Username: user, Password: password, Realm: realm,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if err := client.Listen(); err != nil {
		t.Fatal(err)
	}
	relayed, err := client.Allocate()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { relayed.Close() })
	return relayed
}

func greet(t *testing.T, from, to net.PacketConn, at net.Addr) {
	t.Helper()
	if _, err := from.WriteTo([]byte("hello"), at); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	to.SetReadDeadline(time.Now().Add(patience / 2))
	if n, _, err := to.ReadFrom(b); err != nil || string(b[:n]) != "hello" {
		t.Fatalf("read %q, %v", b[:n], err)
	}
}

// writePackets writes numbered packets of noise, at most a window of them ahead
// of the reader.
func writePackets(c net.PacketConn, to net.Addr, seed byte, window chan<- struct{}) error {
	packet := noise(seed, turnPacket)
	for i := range turnPackets() {
		select {
		case window <- struct{}{}:
		case <-time.After(patience):
			return fmt.Errorf("packet %d: the reader has stopped", i)
		}
		binary.BigEndian.PutUint64(packet, uint64(i))
		if _, err := c.WriteTo(packet, to); err != nil {
			return fmt.Errorf("packet %d: %w", i, err)
		}
	}
	return nil
}

// readPackets reads what writePackets wrote, each in its place.
func readPackets(c net.PacketConn, from net.Addr, seed byte, window <-chan struct{}) error {
	want, packet := noise(seed, turnPacket), make([]byte, 2*turnPacket)
	for i := range turnPackets() {
		c.SetReadDeadline(time.Now().Add(patience / 2))
		n, addr, err := c.ReadFrom(packet)
		if err != nil {
			return fmt.Errorf("packet %d: %w", i, err)
		}
		binary.BigEndian.PutUint64(want, uint64(i))
		if addr.String() != from.String() || !bytes.Equal(packet[:n], want) {
			return fmt.Errorf("packet %d is not what was sent: %d bytes from %v", i, n, addr)
		}
		<-window
	}
	return nil
}
