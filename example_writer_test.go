// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/netip"
	"time"

	"github.com/batchconn/batchconn"
)

// A library that takes a net.PacketConn, and calls WriteTo for one datagram
// after the other, sends in batches when it is given a Writer.
func ExampleWriter() {
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		log.Fatal(err)
	}
	conn, err := batchconn.New(udp, nil)
	if err != nil {
		log.Fatal(err)
	}
	w := batchconn.NewWriter(conn, &batchconn.WriterConfig{
		OnError: func(addr netip.AddrPort, err error) { log.Printf("%v: %v", addr, err) },
	})
	defer w.Close() // and with it conn

	serve := func(c net.PacketConn) error { // the library
		for i := range 3 {
			if _, err := c.WriteTo(fmt.Appendf(nil, "datagram %d", i), c.LocalAddr()); err != nil {
				return err
			}
		}
		buf := make([]byte, 1500)
		for range 3 {
			n, _, err := c.ReadFrom(buf)
			if err != nil {
				return err
			}
			fmt.Printf("%s\n", buf[:n])
		}
		return nil
	}
	if err := serve(w); err != nil {
		log.Fatal(err)
	}
	// Output:
	// datagram 0
	// datagram 1
	// datagram 2
}

// A game or a video server knows when a frame ends. Until then nothing leaves;
// Flush sends the frame in as few calls to the kernel as it can.
func ExampleWriter_Flush() {
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		log.Fatal(err)
	}
	conn, err := batchconn.New(udp, nil)
	if err != nil {
		log.Fatal(err)
	}
	w := batchconn.NewWriter(conn, &batchconn.WriterConfig{MaxDelay: -1})
	defer w.Close()
	player := udp.LocalAddr()

	for frame := range 2 {
		for part := range 10 {
			if _, err := w.WriteTo(fmt.Appendf(nil, "frame %d, part %d", frame, part), player); err != nil {
				log.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second) // time for a frame
		if err := w.Flush(ctx); err != nil {
			log.Fatal(err)
		}
		cancel()
		fmt.Printf("frame %d: %d datagrams sent so far\n", frame, conn.Stats().Messages)
	}
	// Output:
	// frame 0: 10 datagrams sent so far
	// frame 1: 20 datagrams sent so far
}
