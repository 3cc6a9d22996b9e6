// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package interop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/gosnmp/gosnmp"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"golang.org/x/sync/errgroup"
	"layeh.com/radius"
	"layeh.com/radius/rfc2865"
)

// askAll has clients that each ask one question after the other.
func askAll(t *testing.T, clients, questions int, newClient func(client int) (ask func(question int) error)) cost {
	t.Helper()
	asks := make([]func(int) error, clients)
	for i := range asks {
		asks[i] = newClient(i)
	}
	start := begin()
	var g errgroup.Group
	for i, ask := range asks {
		g.Go(func() error {
			for j := range questions {
				if err := ask(j); err != nil {
					return fmt.Errorf("client %d, question %d: %w", i, j, err)
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

// runSNMP gets variables from an agent.
func runSNMP(t *testing.T, s site) cost {
	agent := s.open(t, far)
	go serveSNMP(agent)
	return askAll(t, 8, scaled(10_000)/8, func(client int) func(int) error {
		x := &gosnmp.GoSNMP{Target: "127.0.0.1", Port: 161, Transport: "udp4", Community: "interop", Version: gosnmp.Version2c, Timeout: patience / 2}
		if err := x.Connect(); err != nil { // to nobody: nothing is sent by it
			t.Fatal(err)
		}
		x.Conn.Close()
		x.Conn = s.dial(t, near, agent.LocalAddr())
		return func(question int) error {
			oid := fmt.Sprintf(".1.3.6.1.4.1.%d.%d", client, question+1)
			got, err := x.Get([]string{oid})
			if err != nil {
				return err
			}
			if len(got.Variables) != 1 || got.Variables[0].Name != oid || string(got.Variables[0].Value.([]byte)) != hashOf(oid) {
				return fmt.Errorf("got %v for %s", got.Variables, oid)
			}
			return nil
		}
	})
}

// serveSNMP is an agent each of whose variables is the hash of its name.
func serveSNMP(c net.PacketConn) {
	decoder := &gosnmp.GoSNMP{Version: gosnmp.Version2c}
	b := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		packet, err := decoder.SnmpDecodePacket(b[:n])
		if err != nil {
			continue
		}
		packet.PDUType = gosnmp.GetResponse
		for i := range packet.Variables {
			v := &packet.Variables[i]
			v.Type, v.Value = gosnmp.OctetString, hashOf(v.Name)
		}
		if answer, err := packet.MarshalMsg(); err == nil {
			c.WriteTo(answer, from)
		}
	}
}

// runDHCP has clients get a lease from a server again and again: two questions
// each time.
func runDHCP(t *testing.T, s site) cost {
	c := s.open(t, far)
	server, err := server4.NewServer("", nil, serveDHCP, server4.WithConn(c))
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve()
	return askAll(t, 8, scaled(4000)/8, func(client int) func(int) error {
		hardware := net.HardwareAddr{2, 0, 0, 0, 0, byte(client)}
		cl, err := nclient4.NewWithConn(s.open(t, near), hardware, nclient4.WithServerAddr(c.LocalAddr().(*net.UDPAddr)), nclient4.WithTimeout(patience/2), nclient4.WithRetry(1))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cl.Close() })
		return func(int) error {
			lease, err := cl.Request(context.Background())
			if err != nil {
				return err
			}
			if !lease.ACK.YourIPAddr.Equal(leaseFor(hardware)) {
				return fmt.Errorf("leased %v", lease.ACK.YourIPAddr)
			}
			return nil
		}
	})
}

func leaseFor(hardware net.HardwareAddr) net.IP { return net.IPv4(10, 0, 0, 100+hardware[5]) }

func serveDHCP(c net.PacketConn, peer net.Addr, m *dhcpv4.DHCPv4) {
	kind := dhcpv4.MessageTypeOffer
	if m.MessageType() == dhcpv4.MessageTypeRequest {
		kind = dhcpv4.MessageTypeAck
	}
	answer, err := dhcpv4.NewReplyFromRequest(m, dhcpv4.WithMessageType(kind),
		dhcpv4.WithYourIP(leaseFor(m.ClientHWAddr)), dhcpv4.WithServerIP(net.IPv4(10, 0, 0, 1)),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 0, 0, 1))))
	if err == nil {
		c.WriteTo(answer.ToBytes(), peer)
	}
}

// runRADIUS has a server on the connection. The client opens a socket for each
// request itself.
func runRADIUS(t *testing.T, s site) cost {
	secret := []byte("secret")
	server := &radius.PacketServer{
		SecretSource: radius.StaticSecretSource(secret),
		Handler: radius.HandlerFunc(func(w radius.ResponseWriter, r *radius.Request) {
			answer := r.Response(radius.CodeAccessAccept)
			rfc2865.ReplyMessage_SetString(answer, hashOf(rfc2865.UserName_GetString(r.Packet)))
			w.Write(answer)
		}),
	}
	c := s.open(t, far)
	served := make(chan error, 1)
	go func() { served <- server.Serve(c) }()
	client := &radius.Client{}
	took := askAll(t, 8, scaled(8000)/8, func(id int) func(int) error {
		return func(question int) error {
			ctx, cancel := context.WithTimeout(context.Background(), patience/2)
			defer cancel()
			user := fmt.Sprintf("user %d of %d", question, id)
			request := radius.New(radius.CodeAccessRequest, secret)
			rfc2865.UserName_SetString(request, user)
			answer, err := client.Exchange(ctx, request, c.LocalAddr().String())
			if err != nil {
				return err
			}
			if got := rfc2865.ReplyMessage_GetString(answer); got != hashOf(user) {
				return fmt.Errorf("answered %q", got)
			}
			return nil
		}
	})
	if err := server.Shutdown(withPatience(t)); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if err := <-served; !errors.Is(err, radius.ErrServerShutdown) {
		t.Errorf("Serve: %v", err)
	}
	return took
}

// runResolver has package net's resolver open a connection for each lookup.
func runResolver(t *testing.T, s site) cost {
	server := serveDNS(t, s.listen(t, far))
	to := server.PacketConn.LocalAddr()
	resolver := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		c, err := s.dialUDP(near, to)
		if err != nil {
			return nil, err
		}
		return s.wrap(t, c, nil).(net.Conn), nil
	}}
	took := askAll(t, 8, scaled(8000)/8, func(client int) func(int) error {
		return func(question int) error {
			name := fmt.Sprintf("q%d.c%d.test.", question, client)
			got, err := resolver.LookupTXT(context.Background(), name)
			if err != nil {
				return err
			}
			if len(got) != 1 || got[0] != hashOf(name) {
				return fmt.Errorf("%s: %q", name, got)
			}
			return nil
		}
	})
	shutDownDNS(t, s, server)
	return took
}
