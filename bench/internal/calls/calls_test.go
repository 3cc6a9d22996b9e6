// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package calls

import (
	"net"
	"sync"
	"testing"
)

// TestCount: just the calls of the kind count, those of new threads too.
func TestCount(t *testing.T) {
	u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	const senders, each = 4, 25
	c, err := Count(Send)
	if err != nil {
		t.Skip("not to be had here: ", err)
	}
	var wg sync.WaitGroup
	for range senders {
		wg.Go(func() {
			for range each {
				u.WriteTo([]byte("a"), u.LocalAddr())
				u.ReadFrom(make([]byte, 1))
			}
		})
	}
	wg.Wait()
	if n := c.Stop(); n != senders*each {
		t.Errorf("%d calls, want %d", n, senders*each)
	}
}
