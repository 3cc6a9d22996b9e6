// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package interop

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
)

const (
	dnsClients = 16
	lateName   = "late.test."
)

// dnsQueries is how many each client makes.
func dnsQueries() int { return scaled(20_000) / dnsClients }

// A dnsServer answers a TXT query with the hash of the name.
type dnsServer struct {
	*dns.Server
	answered atomic.Int64
	ended    chan error    // what ActivateAndServe returned
	asked    chan struct{} // closed when somebody asks for lateName
	late     chan struct{} // closed when that may be answered
}

func serveDNS(t *testing.T, c net.PacketConn) *dnsServer {
	t.Helper()
	s := &dnsServer{ended: make(chan error, 1), asked: make(chan struct{}), late: make(chan struct{})}
	started := make(chan struct{})
	s.Server = &dns.Server{PacketConn: c, Handler: s, NotifyStartedFunc: func() { close(started) }}
	go func() { s.ended <- s.ActivateAndServe() }()
	select {
	case <-started:
	case err := <-s.ended:
		t.Fatalf("the server does not start: %v", err)
	}
	return s
}

func (s *dnsServer) ServeDNS(w dns.ResponseWriter, query *dns.Msg) {
	name := query.Question[0].Name
	if name == lateName {
		close(s.asked)
		<-s.late
	}
	answer := new(dns.Msg).SetReply(query)
	answer.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{hashOf(name)}}}
	if err := w.WriteMsg(answer); err == nil {
		s.answered.Add(1)
	}
}

func hashOf(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}

// ask queries one name and checks the answer. It does not ask twice: loopback
// loses none of so few.
func ask(c *dns.Client, conn *dns.Conn, name string) error {
	answer, _, err := c.ExchangeWithConn(new(dns.Msg).SetQuestion(name, dns.TypeTXT), conn)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if len(answer.Answer) != 1 || answer.Answer[0].(*dns.TXT).Txt[0] != hashOf(name) {
		return fmt.Errorf("%s: answered %v", name, answer.Answer)
	}
	return nil
}

// runDNSServer has every query answered, the last while the server shuts down.
func runDNSServer(t *testing.T, s site) cost {
	server := serveDNS(t, s.open(t, near))
	took := queryDNS(t, func() (net.Conn, error) { return s.dialUDP(far, server.PacketConn.LocalAddr()) })
	shutDownDNS(t, s, server) // which waits for all that answers
	if n, want := int(server.answered.Load()), dnsClients*dnsQueries()+1; n != want {
		t.Errorf("%d answers, want %d", n, want)
	}
	return took
}

// runDNSClient has the clients on the connections.
func runDNSClient(t *testing.T, s site) cost {
	server := serveDNS(t, s.listen(t, far))
	took := queryDNS(t, func() (net.Conn, error) { return s.dial(t, near, server.PacketConn.LocalAddr()), nil })
	shutDownDNS(t, s, server)
	return took
}

// queryDNS has clients that each ask one question after the other.
func queryDNS(t *testing.T, dial func() (net.Conn, error)) cost {
	t.Helper()
	client := &dns.Client{Timeout: patience / 2}
	start := begin()
	var g errgroup.Group
	for i := range dnsClients {
		c, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		g.Go(func() error {
			conn := &dns.Conn{Conn: c}
			defer conn.Close()
			for j := range dnsQueries() {
				if err := ask(client, conn, fmt.Sprintf("q%d.c%d.test.", j, i)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return start.cost()
}

// shutDownDNS shuts a server down that still owes an answer: the answer comes,
// then the socket is closed.
func shutDownDNS(t *testing.T, s site, server *dnsServer) {
	t.Helper()
	client := &dns.Client{Timeout: patience / 2}
	c, err := s.dialUDP(far, server.PacketConn.LocalAddr())
	if err != nil {
		t.Fatal(err)
	}
	conn := &dns.Conn{Conn: c}
	defer conn.Close()
	asked := make(chan error, 1)
	go func() { asked <- ask(client, conn, lateName) }()
	select {
	case <-server.asked:
	case err := <-asked:
		t.Fatalf("the last query does not come to the server: %v", err)
	}
	down := make(chan error, 1)
	go func() { down <- server.ShutdownContext(withPatience(t)) }()
	select {
	case err := <-down:
		t.Errorf("ShutdownContext returned %v with a query under way", err)
	case <-time.After(20 * time.Millisecond):
	}
	close(server.late)
	if err := <-asked; err != nil {
		t.Errorf("a query under way when the server shut down: %v", err)
	}
	if err := <-down; err != nil {
		t.Errorf("ShutdownContext: %v", err)
	}
	if err := <-server.ended; err != nil {
		t.Errorf("ActivateAndServe: %v", err)
	}
	if _, err := server.PacketConn.WriteTo([]byte("x"), server.PacketConn.LocalAddr()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the socket after ShutdownContext: %v, want %v", err, net.ErrClosed)
	}
}
