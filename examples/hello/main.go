// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

// Hello sends a hundred datagrams in one call and receives them in a few.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/netip"
	"time"

	"github.com/batchconn/batchconn"
)

func main() {
	sender, receiver := listen(), listen()
	defer sender.Close()
	defer receiver.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()

	to := receiver.LocalAddr().(*net.UDPAddr).AddrPort()
	out := make([]batchconn.OutputMessage, 100)
	for i := range out {
		out[i] = batchconn.OutputMessage{Addr: to, Vectors: [][]byte{fmt.Appendf(nil, "hello %2d", i)}}
	}
	for rest := out; len(rest) > 0; {
		n, err := sender.SendMessages(ctx, rest, 0) // the first n were sent
		if err != nil {
			log.Fatal(err)
		}
		rest = rest[n:]
	}

	in := make([]batchconn.InputMessage, 64)
	for i := range in {
		in[i].Vectors = [][]byte{make([]byte, 1500)}
	}
	for got := 0; got < len(out); {
		n, err := receiver.ReceiveMessages(ctx, in, 0) // the first n were filled: at least one
		if err != nil {
			log.Fatal(err)
		}
		got += n
		last := &in[n-1]
		fmt.Printf("%d of %d, up to %q\n", got, len(out), last.Vectors[0][:last.BytesReceived])
	}
}

func listen() *batchconn.Conn {
	udp, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		log.Fatal(err)
	}
	conn, err := batchconn.New(udp, nil) // conn owns udp from now on
	if err != nil {
		log.Fatal(err)
	}
	return conn
}
