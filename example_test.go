// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/batchconn/batchconn"
	"golang.org/x/net/ipv4"
)

// README.md shows parts of these examples; TestReadme holds it to them.

// openReceiver opens a socket on loopback for an example to send to.
func openReceiver() (*net.UDPConn, netip.AddrPort) {
	u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		log.Fatal(err)
	}
	return u, u.LocalAddr().(*net.UDPAddr).AddrPort()
}

// openConn makes the Conn of an example that is not about New.
func openConn(cfg *batchconn.Config) *batchconn.Conn {
	u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		log.Fatal(err)
	}
	conn, err := batchconn.New(u, cfg)
	if err != nil {
		log.Fatal(err)
	}
	return conn
}

// receive returns the next datagram.
func receive(u *net.UDPConn) []byte {
	u.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 1<<16)
	n, _, err := u.ReadFromUDPAddrPort(buf)
	if err != nil {
		log.Fatal(err)
	}
	return buf[:n]
}

// sendAll sends all of msgs. A count below len(msgs) says that something
// ended the call; the call that sends the rest says what, or goes on.
func sendAll(ctx context.Context, conn *batchconn.Conn, msgs []batchconn.OutputMessage) error {
	for len(msgs) > 0 {
		n, err := conn.SendMessages(ctx, msgs, 0)
		if err != nil {
			return err // n is 0
		}
		msgs = msgs[n:]
	}
	return nil
}

func ExampleConn_SendMessages() {
	receiver, to := openReceiver()
	defer receiver.Close()
	ctx := context.Background()

	u, err := net.ListenUDP("udp", nil)
	if err != nil {
		log.Fatal(err)
	}
	conn, err := batchconn.New(u, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close() // and with it u

	msgs := []batchconn.OutputMessage{
		{Addr: to, Vectors: [][]byte{[]byte("one")}},
		{Addr: to, Vectors: [][]byte{[]byte("two, "), []byte("in pieces")}},
		{Addr: to, Vectors: [][]byte{[]byte("three")}},
	}
	for rest := msgs; len(rest) > 0; {
		n, err := conn.SendMessages(ctx, rest, 0)
		if err != nil {
			log.Fatal(err) // n is 0
		}
		rest = rest[n:]
	}

	for _, m := range msgs {
		fmt.Printf("%d bytes: %s\n", m.BytesSent, receive(receiver))
	}
	// Output:
	// 3 bytes: one
	// 14 bytes: two, in pieces
	// 5 bytes: three
}

// A call whose context ends returns the messages that it sent until then, or an
// error that Is the context's. It does not touch the write deadline, nor any
// other call.
func ExampleConn_SendMessages_cancel() {
	receiver, to := openReceiver()
	defer receiver.Close()
	conn := openConn(nil)
	defer conn.Close()
	msgs := batchconn.AppendSegments(nil, to, []byte("abcdefgh"), 4, nil)

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	n, err := conn.SendMessages(ctx, msgs, 0)
	fmt.Println(n, errors.Is(err, context.Canceled))

	n, err = conn.SendMessages(context.Background(), msgs, 0)
	fmt.Println(n, err)
	// Output:
	// 0 true
	// 2 <nil>
}

// An echo server: what came in one call goes back in one call, without a copy.
func ExampleConn_ReceiveMessages() {
	conn := openConn(nil)
	defer conn.Close()
	client, _ := openReceiver()
	defer client.Close()
	go func() {
		for _, p := range []string{"one", "two", "three"} {
			client.WriteToUDPAddrPort([]byte(p), conn.LocalAddr().(*net.UDPAddr).AddrPort())
		}
	}()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- echo(ctx, conn) }()

	fmt.Printf("%s %s %s\n", receive(client), receive(client), receive(client))
	cancel()
	fmt.Println(errors.Is(<-ended, context.Canceled))
	// Output:
	// one two three
	// true
}

func echo(ctx context.Context, conn *batchconn.Conn) error {
	in := make([]batchconn.InputMessage, 64)
	out := make([]batchconn.OutputMessage, len(in))
	for i := range in {
		in[i].Vectors = [][]byte{make([]byte, 1500)}
	}
	for {
		n, err := conn.ReceiveMessages(ctx, in, 0) // at least one
		if err != nil {
			return err
		}
		for i, m := range in[:n] {
			out[i] = batchconn.OutputMessage{Addr: m.Addr, Vectors: [][]byte{m.Vectors[0][:m.BytesReceived]}}
		}
		if _, err := conn.SendEach(ctx, out[:n], 0); err != nil {
			log.Print(err) // of single clients, or of ctx: the next read ends with that
		}
	}
}

// A fan-out: the same header and payload to many receivers, one of which is of
// a family that the socket cannot reach.
func ExampleConn_SendEach() {
	receiver, to := openReceiver()
	defer receiver.Close()
	conn := openConn(nil)
	defer conn.Close()
	ctx := context.Background()
	header, payload := []byte("RTP "), []byte("tick")
	receivers := []netip.AddrPort{to, netip.MustParseAddrPort("[2001:db8::1]:9000"), to}

	msgs := make([]batchconn.OutputMessage, len(receivers))
	for i, to := range receivers {
		msgs[i] = batchconn.OutputMessage{Addr: to, Vectors: [][]byte{header, payload}}
	}
	n, err := conn.SendEach(ctx, msgs, 0)
	var failed *batchconn.BatchError
	if errors.As(err, &failed) {
		for _, m := range failed.Failed {
			fmt.Println("not sent to receiver", m.Index, m.Addr) // m.Err says why
		}
		err = failed.Err // what ended the call before its last message
	}
	fmt.Println("tried", n, "of", len(msgs), err)

	fmt.Printf("%s, %s\n", receive(receiver), receive(receiver))
	// Output:
	// not sent to receiver 1 [2001:db8::1]:9000
	// tried 3 of 3 <nil>
	// RTP tick, RTP tick
}

// A sender as QUIC has it: packets of one size are written one after the other
// into one buffer, and as many as the congestion window allows leave together.
func ExampleAppendSegments() {
	receiver, to := openReceiver()
	defer receiver.Close()
	conn := openConn(nil)
	defer conn.Close()
	ctx := context.Background()

	const packetSize = 1200
	buf := make([]byte, 0, 64*packetSize)
	var msgs []batchconn.OutputMessage // reused by the next burst

	for i := range 3 { // the packets of a burst; the last may be shorter
		packet := make([]byte, packetSize-200*(i/2))
		packet[0] = byte(i)
		buf = append(buf, packet...)
	}
	msgs = batchconn.AppendSegments(msgs[:0], to, buf, packetSize, nil)
	if err := sendAll(ctx, conn, msgs); err != nil {
		log.Fatal(err)
	}
	buf = buf[:0] // buf and msgs are the caller's again

	for range msgs {
		p := receive(receiver)
		fmt.Println("packet", p[0], "of", len(p), "bytes")
	}
	// Output:
	// packet 0 of 1200 bytes
	// packet 1 of 1200 bytes
	// packet 2 of 1000 bytes
}

// An RTP sender: the header (RFC 3550, section 5.1) is one vector and the
// payload, which stays where the encoder put it, is another.
func ExampleOutputMessage_rtp() {
	receiver, to := openReceiver()
	defer receiver.Close()
	conn := openConn(nil)
	defer conn.Close()
	ctx := context.Background()
	frame := []byte("a frame of video, cut into packets")
	var sequence uint16 = 7
	const timestamp, ssrc, payloadType, maxPayload = 90000, 0x1234, 96, 16

	var msgs []batchconn.OutputMessage
	for len(frame) > 0 {
		payload := frame[:min(maxPayload, len(frame))]
		frame = frame[len(payload):]

		header := make([]byte, 12)
		header[0] = 2 << 6 // version 2
		header[1] = payloadType
		if len(frame) == 0 {
			header[1] |= 1 << 7 // the marker: last packet of the frame
		}
		binary.BigEndian.PutUint16(header[2:], sequence)
		binary.BigEndian.PutUint32(header[4:], timestamp)
		binary.BigEndian.PutUint32(header[8:], ssrc)
		sequence++

		msgs = append(msgs, batchconn.OutputMessage{Addr: to, Vectors: [][]byte{header, payload}})
	}
	if err := sendAll(ctx, conn, msgs); err != nil {
		log.Fatal(err)
	}

	for range msgs {
		p := receive(receiver)
		fmt.Printf("sequence %d, marker %d: %q\n", binary.BigEndian.Uint16(p[2:]), p[1]>>7, p[12:])
	}
	// Output:
	// sequence 7, marker 0: "a frame of video"
	// sequence 8, marker 0: ", cut into packe"
	// sequence 9, marker 1: "ts"
}

// Code written for golang.org/x/net's PacketConn takes a Conn instead.
func ExampleConn_WriteBatch() {
	receiver, to := openReceiver()
	defer receiver.Close()
	conn := openConn(nil)
	defer conn.Close()

	// *ipv4.PacketConn, *ipv6.PacketConn and *batchconn.Conn all are one.
	type batchWriter interface {
		WriteBatch(ms []ipv4.Message, flags int) (int, error)
	}
	writeAll := func(w batchWriter, ms []ipv4.Message) error {
		for len(ms) > 0 {
			n, err := w.WriteBatch(ms, 0)
			if err != nil {
				return err
			}
			ms = ms[n:]
		}
		return nil
	}

	ms := []ipv4.Message{
		{Addr: net.UDPAddrFromAddrPort(to), Buffers: [][]byte{[]byte("one")}},
		{Addr: net.UDPAddrFromAddrPort(to), Buffers: [][]byte{[]byte("two")}},
	}
	if err := writeAll(conn, ms); err != nil { // was: writeAll(ipv4.NewPacketConn(u), ms)
		log.Fatal(err)
	}

	for _, m := range ms {
		fmt.Printf("%d bytes: %s\n", m.N, receive(receiver))
	}
	// Output:
	// 3 bytes: one
	// 3 bytes: two
}

// An event loop that must not be held up: what does not fit stays with the
// caller, which waits for room when it suits.
func ExampleConn_WaitWritable() {
	receiver, to := openReceiver()
	defer receiver.Close()
	conn := openConn(&batchconn.Config{NonBlocking: true})
	defer conn.Close()
	ctx := context.Background()
	msgs := batchconn.AppendSegments(nil, to, []byte("abcdefghij"), 4, nil)

	for rest := msgs; len(rest) > 0; {
		n, err := conn.SendMessages(ctx, rest, 0)
		if errors.Is(err, batchconn.ErrWouldBlock) {
			err = conn.WaitWritable(ctx)
		}
		if err != nil {
			log.Fatal(err)
		}
		rest = rest[n:]
	}

	fmt.Printf("%s %s %s\n", receive(receiver), receive(receiver), receive(receiver))
	// Output: abcd efgh ij
}

// A Writer takes the place of the connection in code that knows nothing of
// batches.
func ExampleNewWriter() {
	conn := openConn(nil)
	receiver, to := openReceiver()
	defer receiver.Close()
	serve := func(c net.PacketConn, to netip.AddrPort) {
		for _, p := range []string{"one", "two", "three"} {
			if _, err := c.WriteTo([]byte(p), net.UDPAddrFromAddrPort(to)); err != nil {
				log.Fatal(err)
			}
		}
	}

	w := batchconn.NewWriter(conn, nil)
	defer w.Close()
	serve(w, to) // code that takes a net.PacketConn: its WriteTo loop makes batches now

	fmt.Printf("%s %s %s\n", receive(receiver), receive(receiver), receive(receiver))
	// Output: one two three
}

// TestReadme holds the code in README.md to that of the examples: each block is
// found in one of them, except for the indentation.
func TestReadme(t *testing.T) {
	code := unindented(t, "example_test.go") + unindented(t, "examples/hello/main.go") + unindented(t, "interop/recipes_test.go")
	blocks := strings.Split(unindented(t, "README.md"), "\n```go\n")[1:]
	if len(blocks) == 0 {
		t.Error("README.md shows no code")
	}
	for _, b := range blocks {
		b, _, closed := strings.Cut(b, "\n```\n")
		if !closed || !strings.Contains(code, "\n"+b+"\n") {
			t.Errorf("README.md shows code that no example has:\n%s", b)
		}
	}
}

// unindented returns the lines of a file without the space around each.
func unindented(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, "\n")
}
