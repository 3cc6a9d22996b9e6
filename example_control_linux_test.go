// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn_test

import (
	"encoding/binary"
	"fmt"
	"log"
	"net"
	"net/netip"
	"time"

	"github.com/batchconn/batchconn"
)

// On Linux, which has all fields and answers on all of 127.0.0.0/8.

// listenConn makes the Conn of an example that receives control messages.
func listenConn(ip net.IP, which batchconn.ControlFlags) (*batchconn.Conn, uint16) {
	u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: ip})
	if err != nil {
		log.Fatal(err)
	}
	conn, err := batchconn.New(u, nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := conn.ReceiveControl(which); err != nil {
		log.Fatal(err) // Is errors.ErrUnsupported where the system cannot do it
	}
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	return conn, u.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

// readControl reads a datagram and what came beside it.
func readControl(conn *batchconn.Conn, buf, oob []byte) (n int, m batchconn.ControlMessage, from netip.AddrPort) {
	n, oobn, _, from, err := conn.ReadMsgUDPAddrPort(buf, oob)
	if err != nil {
		log.Fatal(err)
	}
	if err := m.Parse(oob[:oobn]); err != nil {
		log.Fatal(err)
	}
	return n, m, from
}

// A DNS server listens on all addresses of a host that has several, and its
// answer must come from the one that was asked: resolvers drop others.
func ExampleControlMessage_reply() {
	server, port := listenConn(net.IPv4zero, batchconn.ControlLocal)
	defer server.Close()
	client := openConn(nil)
	defer client.Close()
	asked := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), port)
	if _, err := client.WriteToUDPAddrPort([]byte("a question"), asked); err != nil {
		log.Fatal(err)
	}

	buf, oob := make([]byte, 512), make([]byte, 256)
	_, m, from := readControl(server, buf, oob)
	m.Flags &= batchconn.ControlLocal // whatever else was received is not for the answer
	answer := batchconn.OutputMessage{
		Addr:    from,
		Vectors: [][]byte{[]byte("an answer")},
		Control: m.Append(oob[:0], from.Addr()),
	}
	if _, err := server.SendMessage(nil, &answer, 0); err != nil {
		log.Fatal(err)
	}

	client.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, from, err := client.ReadFromUDPAddrPort(buf)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s from %v\n", buf[:n], from.Addr())
	// Output:
	// an answer from 127.0.0.2
}

// A QUIC sender marks its packets as ECN-capable, ECT(0), and the receiver
// echoes how many came with which mark (RFC 9000, section 13.4). Packets that
// are marked alike still leave in one segmented message.
func ExampleControlMessage_ECN() {
	const ect0, ce = 2, 3
	receiver, port := listenConn(net.IPv4(127, 0, 0, 1), batchconn.ControlTOS)
	defer receiver.Close()
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)

	sender := openConn(nil)
	defer sender.Close()
	mark := batchconn.ControlMessage{Flags: batchconn.ControlTOS, TOS: ect0}
	msgs := batchconn.AppendSegments(nil, to, make([]byte, 12000), 1200, mark.Append(nil, to.Addr()))
	mark.TOS = ce // as a congested router marks them
	msgs = batchconn.AppendSegments(msgs, to, make([]byte, 1200), 1200, mark.Append(nil, to.Addr()))
	if n, err := sender.SendMessages(nil, msgs, 0); n != len(msgs) {
		log.Fatal(n, err)
	}

	var counts [4]byte
	var from netip.AddrPort
	buf, oob := make([]byte, 1500), make([]byte, 256)
	for range msgs {
		var m batchconn.ControlMessage
		_, m, from = readControl(receiver, buf, oob)
		counts[m.ECN()]++
	}
	if _, err := receiver.SendTo(nil, counts[:], from, 0); err != nil {
		log.Fatal(err)
	}

	sender.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := sender.Read(counts[:]); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("ECT(0): %d, CE: %d\n", counts[ect0], counts[ce])
	// Output:
	// ECT(0): 10, CE: 1
}

// An RTP receiver computes the jitter (RFC 3550, appendix A.8) from when the
// system received each packet, not from when the program came to read it.
func ExampleControlMessage_receiveTime() {
	receiver, port := listenConn(net.IPv4(127, 0, 0, 1), batchconn.ControlTime)
	defer receiver.Close()
	sender := openConn(nil)
	defer sender.Close()
	const clockRate, frame = 90_000, 1800 // a second, and the 20 ms of a packet, in RTP's unit
	for i := range uint32(4) {
		packet := make([]byte, 12)
		packet[0] = 2 << 6 // version 2
		binary.BigEndian.PutUint32(packet[4:], i*frame)
		if _, err := sender.SendTo(nil, packet, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port), 0); err != nil {
			log.Fatal(err)
		}
	}

	var jitter float64
	var last time.Time
	var lastStamp int64
	buf, oob := make([]byte, 1500), make([]byte, 256)
	for i := range 4 {
		_, m, _ := readControl(receiver, buf, oob)
		stamp := int64(binary.BigEndian.Uint32(buf[4:]))
		if i > 0 {
			d := m.Time.Sub(last).Seconds()*clockRate - float64(stamp-lastStamp)
			jitter += (max(d, -d) - jitter) / 16
		}
		last, lastStamp = m.Time, stamp
	}
	// They left at once, and not 20 ms apart as their stamps say.
	fmt.Println("jitter:", jitter > 0)
	// Output:
	// jitter: true
}
