// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package interop

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/emiago/sipgo"
	"github.com/emiago/sipgo/sip"
)

// runSIP has a client ask a server, both on connections that serve.
func runSIP(t *testing.T, s site) cost {
	server, agent := newSIPAgent(t), newSIPAgent(t)
	answers, err := sipgo.NewServer(server)
	if err != nil {
		t.Fatal(err)
	}
	answers.OnOptions(func(r *sip.Request, tx sip.ServerTransaction) {
		tx.Respond(sip.NewResponseFromRequest(r, 200, "OK", []byte(hashOf(string(r.Body())))))
	})
	at, from := serveSIP(t, s, far, server), serveSIP(t, s, near, agent) // once it is known what answers
	client, err := sipgo.NewClient(agent, sipgo.WithClientConnectionAddr(from.String()), sipgo.WithClientAddr(from.String()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	to := sip.Uri{Scheme: "sip", User: "interop", Host: at.IP.String(), Port: at.Port}
	return askAll(t, 8, scaled(4000)/8, func(id int) func(int) error {
		return func(question int) error {
			ctx, cancel := context.WithTimeout(context.Background(), patience/2)
			defer cancel()
			request := sip.NewRequest(sip.OPTIONS, to)
			request.SetTransport("UDP")
			request.SetBody(fmt.Appendf(nil, "question %d of %d", question, id))
			answer, err := client.Do(ctx, request)
			if err != nil {
				return err
			}
			if answer.StatusCode != 200 || string(answer.Body()) != hashOf(string(request.Body())) {
				return fmt.Errorf("answered %v", answer)
			}
			return nil
		}
	})
}

func newSIPAgent(t *testing.T) *sipgo.UserAgent {
	t.Helper()
	agent, err := sipgo.NewUA()
	if err != nil {
		t.Fatal(err)
	}
	return agent
}

// serveSIP has an agent serve on a connection, which it closes.
func serveSIP(t *testing.T, s site, end int, agent *sipgo.UserAgent) *net.UDPAddr {
	t.Helper()
	c := s.open(t, end)
	served := make(chan error, 1)
	go func() { served <- agent.TransportLayer().ServeUDP(c) }()
	t.Cleanup(func() {
		agent.Close()
		c.Close()
		<-served
	})
	addr := c.LocalAddr().(*net.UDPAddr)
	// An agent that has not taken it up opens one of its own to send by.
	for end := time.Now().Add(patience / 2); agent.TransportLayer().Pool("udp").Size() == 0; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("the agent does not serve")
		}
	}
	return addr
}
