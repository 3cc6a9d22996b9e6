// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package interop

import (
	"bytes"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/DataDog/datadog-go/v5/statsd"
)

const statsdWindow = 2000 // counts under way: statsd repeats none

// runStatsd counts, at a server that sums up.
func runStatsd(t *testing.T, s site) cost {
	server := s.open(t, far)
	var g gauge
	go g.serve(server)
	// A packet a datagram for every few counts: statsd's own buffering would
	// leave the connection little to do.
	client, err := statsd.NewWithWriter(s.dial(t, near, server.LocalAddr()), statsd.WithoutTelemetry(),
		statsd.WithoutClientSideAggregation(), statsd.WithoutOriginDetection(), statsd.WithMaxMessagesPerPayload(4), statsd.WithSenderQueueSize(statsdWindow))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	start := begin()
	sum := 0
	for range scaled(40) {
		for i := range statsdWindow {
			if err := client.Count("interop.count", int64(i), []string{"some:tag"}, 1); err != nil {
				t.Fatal(err)
			}
			sum += i
		}
		if err := client.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := g.await(sum); err != nil {
			t.Fatal(err)
		}
	}
	return start.cost()
}

// A gauge sums up what statsd clients count.
type gauge struct {
	mu  sync.Mutex
	sum int
	err error
}

func (g *gauge) serve(c net.PacketConn) {
	b := make([]byte, 1<<13)
	for {
		n, _, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		g.mu.Lock()
		for line := range bytes.Lines(b[:n]) {
			var v int
			if _, err := fmt.Sscanf(string(bytes.TrimSpace(line)), "interop.count:%d|c|#some:tag", &v); err != nil {
				g.err = fmt.Errorf("read %q: %w", line, err)
			}
			g.sum += v
		}
		g.mu.Unlock()
	}
}

// await waits until the sum is reached.
func (g *gauge) await(sum int) error {
	for end := time.Now().Add(patience / 2); time.Now().Before(end); time.Sleep(20 * time.Microsecond) {
		g.mu.Lock()
		got, err := g.sum, g.err
		g.mu.Unlock()
		if err != nil || got == sum {
			return err
		}
	}
	return fmt.Errorf("the sum is %d, want %d", g.sum, sum)
}
