// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package interop

import (
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/pion/sctp"
	"golang.org/x/sync/errgroup"
)

// sctpBytes is what goes each way.
func sctpBytes() int { return scaled(8<<20) / channelMessage * channelMessage }

// runSCTP sends both ways at once over one stream of an association.
func runSCTP(t *testing.T, s site) cost {
	a, b := s.openPair(t)
	ends := associate(t, a, b)
	var streams [2]*sctp.Stream
	var err error
	if streams[0], err = ends[0].OpenStream(1, sctp.PayloadTypeWebRTCBinary); err != nil {
		t.Fatal(err)
	}
	hello := []byte("hello") // the other end hears of the stream by it
	if _, err := streams[0].Write(hello); err != nil {
		t.Fatal(err)
	}
	if streams[1], err = ends[1].AcceptStream(); err != nil {
		t.Fatal(err)
	}
	streams[1].SetDefaultPayloadType(sctp.PayloadTypeWebRTCBinary)
	if _, err := io.ReadFull(streams[1], make([]byte, len(hello))); err != nil {
		t.Fatal(err)
	}
	data := noise(50, sctpBytes())
	start := begin()
	var g errgroup.Group
	for _, stream := range streams {
		g.Go(func() error { return writeMessages(stream, data) })
		g.Go(func() error { return readMessages(stream, data) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return start.cost()
}

func associate(t *testing.T, conns ...net.Conn) (ends [2]*sctp.Association) {
	t.Helper()
	var g errgroup.Group
	for i, c := range conns {
		option := []interface {
			sctp.ClientOption
			sctp.ServerOption
		}{sctp.WithNetConn(c), sctp.WithBlockWrite(true), sctp.WithMTU(1200)}
		g.Go(func() (err error) {
			if i == 0 {
				ends[i], err = sctp.ClientWithOptions(option[0], option[1], option[2])
			} else {
				ends[i], err = sctp.ServerWithOptions(option[0], option[1], option[2])
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, a := range ends {
			a.Close()
		}
	})
	return ends
}

func writeMessages(w io.Writer, data []byte) error {
	for len(data) > 0 {
		n, err := w.Write(data[:channelMessage])
		if err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

func readMessages(r io.Reader, want []byte) error {
	c := comparer{want: want}
	buf := make([]byte, 2*channelMessage)
	for c.got < len(want) {
		n, err := r.Read(buf)
		if err == nil {
			_, err = c.Write(buf[:n])
		}
		if err != nil {
			return fmt.Errorf("after %d bytes: %w", c.got, err)
		}
	}
	return nil
}
