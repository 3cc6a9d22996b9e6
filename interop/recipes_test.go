// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package interop

import (
	"crypto/tls"
	"net"
	"testing"

	"github.com/batchconn/batchconn"
	"github.com/miekg/dns"
	"github.com/pion/ice/v4"
	"github.com/pion/webrtc/v4"
	"github.com/quic-go/quic-go"
	wireguard "golang.zx2c4.com/wireguard/conn"
)

// README.md shows these functions. A test of the root module holds it to them.

func listenQUIC(udp *net.UDPConn, config *tls.Config) (*quic.Listener, error) {
	conn, err := batchconn.New(udp, nil)
	if err != nil {
		return nil, err
	}
	transport := &quic.Transport{Conn: conn}
	return transport.Listen(config, nil)
}

func newWebRTC(conn *batchconn.Conn) *webrtc.API {
	var settings webrtc.SettingEngine
	settings.SetICEUDPMux(ice.NewUDPMuxDefault(ice.UDPMuxParams{UDPConn: conn}))
	return webrtc.NewAPI(webrtc.WithSettingEngine(settings))
}

func answerDNS(conn *batchconn.Conn, handler dns.Handler) error {
	server := &dns.Server{PacketConn: conn, Handler: handler}
	return server.ActivateAndServe()
}

func receiveFunc(conn *batchconn.Conn) wireguard.ReceiveFunc {
	in := make([]batchconn.InputMessage, wireguard.IdealBatchSize)
	return func(bufs [][]byte, sizes []int, eps []wireguard.Endpoint) (int, error) {
		for i := range bufs {
			in[i].Vectors = bufs[i : i+1]
		}
		n, err := conn.ReceiveMessages(nil, in[:len(bufs)], 0)
		for i, m := range in[:n] {
			sizes[i], eps[i] = m.BytesReceived, &wireguard.StdNetEndpoint{AddrPort: m.Addr}
		}
		return n, err
	}
}

// TestRecipes: what README.md shows works.
func TestRecipes(t *testing.T) {
	cert, _ := identity()
	udp := loopback.newSocket(t, near)
	listener, err := listenQUIC(udp, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{quicProtocol}})
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	defer listener.Close()
	newConn := func() *batchconn.Conn {
		c, err := batchconn.New(loopback.newSocket(t, near), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	if peer, err := newWebRTC(newConn()).NewPeerConnection(webrtc.Configuration{}); err != nil {
		t.Error(err)
	} else if err := peer.Close(); err != nil {
		t.Error(err)
	}
	c := newConn()
	served := make(chan error, 1)
	go func() {
		served <- answerDNS(c, dns.HandlerFunc(func(w dns.ResponseWriter, m *dns.Msg) { w.WriteMsg(new(dns.Msg).SetReply(m)) }))
	}()
	if _, err := dns.Exchange(new(dns.Msg).SetQuestion("example.org.", dns.TypeA), c.LocalAddr().String()); err != nil {
		t.Error(err)
	}
	c.Close()
	if err := <-served; err == nil {
		t.Error("the server ended without an error")
	}
	c = newConn()
	if _, err := newConn().WriteTo([]byte("abc"), c.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	bufs, sizes, eps := [][]byte{make([]byte, 10)}, make([]int, 1), make([]wireguard.Endpoint, 1)
	if n, err := receiveFunc(c)(bufs, sizes, eps); n != 1 || err != nil || string(bufs[0][:sizes[0]]) != "abc" {
		t.Errorf("%d, %v, %q", n, err, bufs[0][:sizes[0]])
	}
}
