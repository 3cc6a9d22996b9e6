// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package interop

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	"golang.org/x/sync/errgroup"
)

const (
	dtlsRecord = 1100 // bytes
	dtlsWindow = 32   // records under way in each direction: DTLS repeats none
)

// dtlsRecords is how many go each way.
func dtlsRecords() int { return scaled(10_000) }

// runDTLS shakes hands and sends records both ways at once.
func runDTLS(t *testing.T, s site) cost {
	client, server := dtlsPair(t, s.open(t, far), s.open(t, near))
	start := begin()
	var g errgroup.Group
	forth, back := make(chan struct{}, dtlsWindow), make(chan struct{}, dtlsWindow)
	g.Go(func() error { return writeRecords(t.Context(), client, 5, forth) })
	g.Go(func() error { return writeRecords(t.Context(), server, 6, back) })
	g.Go(func() error { return readRecords(server, 5, forth) })
	g.Go(func() error { return readRecords(client, 6, back) })
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return start.cost()
}

func dtlsPair(t *testing.T, clientConn, serverConn net.PacketConn) (client, server *dtls.Conn) {
	t.Helper()
	cert, pool := identity()
	client, err := dtls.ClientWithOptions(clientConn, serverConn.LocalAddr(), dtls.WithRootCAs(pool), dtls.WithServerName("localhost"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	server, err = dtls.ServerWithOptions(serverConn, clientConn.LocalAddr(), dtls.WithCertificates(cert))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	ctx := withPatience(t)
	var g errgroup.Group
	g.Go(func() error { return client.HandshakeContext(ctx) })
	g.Go(func() error { return server.HandshakeContext(ctx) })
	if err := g.Wait(); err != nil {
		t.Fatalf("handshake: %v", err)
	}
	return client, server
}

// writeRecords writes numbered records of noise, at most a window of them ahead
// of the reader.
func writeRecords(ctx context.Context, c net.Conn, seed byte, window chan<- struct{}) error {
	record := noise(seed, dtlsRecord)
	for i := range dtlsRecords() {
		select {
		case window <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(patience):
			return fmt.Errorf("record %d: the reader has stopped", i)
		}
		binary.BigEndian.PutUint64(record, uint64(i))
		if _, err := c.Write(record); err != nil {
			return fmt.Errorf("record %d: %w", i, err)
		}
	}
	return nil
}

// readRecords reads what writeRecords wrote, each in its place.
func readRecords(c net.Conn, seed byte, window <-chan struct{}) error {
	want := noise(seed, dtlsRecord)
	record := make([]byte, 2*dtlsRecord)
	for i := range dtlsRecords() {
		c.SetReadDeadline(time.Now().Add(patience / 2))
		n, err := c.Read(record)
		if err != nil {
			return fmt.Errorf("record %d: %w", i, err)
		}
		binary.BigEndian.PutUint64(want, uint64(i))
		if !bytes.Equal(record[:n], want) {
			return fmt.Errorf("record %d is not what was sent: %d bytes, number %d", i, n, binary.BigEndian.Uint64(record))
		}
		<-window
	}
	return nil
}
