// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package replyconn

import (
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// serve runs a DNS server on all addresses and returns its port.
func serve(t *testing.T, network string) uint16 {
	t.Helper()
	udp, err := net.ListenUDP(network, nil)
	if err != nil {
		t.Skipf("no %s here: %v", network, err)
	}
	c, err := New(udp, nil)
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{PacketConn: c, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, query *dns.Msg) {
		w.WriteMsg(new(dns.Msg).SetReply(query))
	})}
	ended := make(chan error, 1)
	go func() { ended <- server.ActivateAndServe() }()
	t.Cleanup(func() {
		c.Close()
		<-ended
	})
	return c.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

// TestDNS asks at several addresses, and each answers for itself.
func TestDNS(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux has all of 127.0.0.0/8")
	}
	for network, hosts := range map[string][]string{
		"udp4": {"127.0.0.1", "127.0.0.2", "127.9.8.7"},
		"udp":  {"127.0.0.1", "127.0.0.2", "::1"},
	} {
		port := serve(t, network)
		for _, host := range hosts {
			asked := netip.AddrPortFrom(netip.MustParseAddr(host), port)
			if from := ask(t, asked); from != asked {
				t.Errorf("%s: asked at %v, answered from %v", network, asked, from)
			}
		}
	}
}

// ask sends a query and says where its answer came from.
func ask(t *testing.T, at netip.AddrPort) netip.AddrPort {
	t.Helper()
	client, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv6unspecified})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	query := new(dns.Msg).SetQuestion("example.org.", dns.TypeA)
	packed, err := query.Pack()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.WriteToUDPAddrPort(packed, at); err != nil {
		t.Fatal(err)
	}
	client.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 512)
	n, from, err := client.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatal(err)
	}
	answer := new(dns.Msg)
	if err := answer.Unpack(buf[:n]); err != nil || answer.Id != query.Id || !answer.Response {
		t.Errorf("%v: %v", answer, err)
	}
	return netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}

// TestForeignAddr: WriteTo takes other addresses too.
func TestForeignAddr(t *testing.T) {
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(udp, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.WriteTo([]byte("to itself"), c.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 100)
	n, from, err := c.ReadFrom(buf)
	if err != nil || string(buf[:n]) != "to itself" || from.String() != c.LocalAddr().String() {
		t.Errorf("%q from %v, %v", buf[:n], from, err)
	}
}
