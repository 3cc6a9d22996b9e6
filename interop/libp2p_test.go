// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package interop

import (
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	p2pnet "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/multiformats/go-multiaddr"
	"github.com/quic-go/quic-go"
)

// p2pBytes is what goes from one host to the other.
func p2pBytes() int { return scaled(32 << 20) }

// runLibp2p has a peer download from another over libp2p's QUIC transport.
func runLibp2p(t *testing.T, s site) cost {
	content := noise(80, p2pBytes())
	server, id := newP2PTransport(t, s, far)
	client, _ := newP2PTransport(t, s, near)
	listener, err := server.Listen(multiaddr.StringCast(fmt.Sprintf("/ip4/%v/udp/0/quic-v1", s.ends[far].addr)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	ctx := withPatience(t)
	served := make(chan error, 1)
	go func() { served <- serveP2P(listener, content) }()
	conn, err := client.Dial(ctx, listener.Multiaddr(), id)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	start := begin()
	stream, err := conn.OpenStream(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Reset()
	stream.Write([]byte("?")) // the other end hears of the stream by it
	if err := readAll(stream, content); err != nil {
		t.Fatal(err)
	}
	took := start.cost()
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	return took
}

func serveP2P(listener transport.Listener, content []byte) error {
	conn, err := listener.Accept()
	if err != nil {
		return err
	}
	stream, err := conn.AcceptStream()
	if err != nil {
		return err
	}
	if _, err := stream.Write(content); err != nil {
		return err
	}
	return stream.Close()
}

// newP2PTransport is one whose sockets are made for it.
func newP2PTransport(t *testing.T, s site, end int) (transport.Transport, peer.ID) {
	t.Helper()
	var opened []net.PacketConn
	t.Cleanup(func() { // after all others: the manager leaves them open
		for _, c := range opened {
			c.Close()
		}
	})
	listen := quicreuse.OverrideListenUDP(func(network string, addr *net.UDPAddr) (c net.PacketConn, err error) {
		err = s.ends[end].do(func() error {
			udp, err := net.ListenUDP(network, addr)
			if err == nil {
				enlarge(udp)
				c = s.wrap(t, udp, nil)
				opened = append(opened, c)
			}
			return err
		})
		return c, err
	})
	sockets, err := quicreuse.NewConnManager(quic.StatelessResetKey{}, quic.TokenGeneratorKey{}, listen, quicreuse.DisableReuseport())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sockets.Close() })
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := libp2pquic.NewTransport(key, sockets, nil, nil, &p2pnet.NullResourceManager{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.(io.Closer).Close() })
	return tr, id
}
