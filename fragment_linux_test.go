// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux && !android && !batchconn_portable

package batchconn

import (
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/batchconn/batchconn/internal/netns"
)

// TestDontFragment: all datagrams over IPv4 have the DF bit, those of runs too,
// and what is too long for the interface is refused, of either family.
func TestDontFragment(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) { // whose MTU is 1500
		netns.Check(t, lo.ns.Loopback().SetFeature("tx-udp-segmentation", false)) // cut before it, as before a device
		captured := framesFrom(t, "lo", unix.ETH_P_IP)
		for _, k := range kinds {
			for _, gso := range []GSOMode{GSOOff, GSOAuto} {
				for i := range k.to {
					w := k.world(t, len(k.to), &Config{DontFragment: true, GSO: gso})
					fits := 1472
					if strings.Contains(k.to[i], ":") {
						fits = 1452
					}
					msgs := w.messages(i, nil, slices.Repeat([]int{fits}, 8)...)
					if n, err := w.conn.SendMessages(nil, msgs, 0); n != 8 || err != nil {
						t.Fatalf("%s: %d, %v", k.name, n, err)
					}
					if s := w.conn.Stats(); (s.Segmented == 8) != (gso == GSOAuto) {
						t.Errorf("%s: %+v", k.name, s)
					}
					w.checkArrived(t, msgs, 8)
					if fits == 1472 {
						checkDF(t, k.name, captured(w.inboxes[i].addr.Port(), 9)[:8], fits) // and the mark at the end
					}
					testTooLong(t, w, i, fits+1)
				}
			}
		}
	})
}

func checkDF(t *testing.T, name string, fs []frame, size int) {
	t.Helper()
	for i, f := range fs {
		if len(f.payload) != size || f.ip[6]&0x40 == 0 {
			t.Errorf("%s: datagram %d of %d bytes has flags %#x, want %d bytes and DF", name, i, len(f.payload), f.ip[6], size)
		}
	}
}

func testTooLong(t *testing.T, w *world, inbox, size int) {
	t.Helper()
	msgs := w.messages(inbox, nil, size, size, size)
	if n, err := w.conn.SendMessages(nil, msgs, 0); n != 0 || !errors.Is(err, syscall.EMSGSIZE) {
		t.Errorf("%s: %d of %d bytes: %d, %v", w.name, len(msgs), size, n, err)
	}
	if _, err := w.conn.SendTo(nil, msgs[0].Vectors[0][:1], msgs[0].Addr, 0); err != nil {
		t.Errorf("%s: a short one: %v", w.name, err)
	}
	if n, err := w.conn.SendMessage(nil, &msgs[0], 0); n != 0 || !errors.Is(err, syscall.EMSGSIZE) {
		t.Errorf("%s: %d bytes: %d, %v", w.name, size, n, err)
	}
	if s := w.conn.Stats(); !s.GSO && !strings.Contains(s.GSOReason, "GSOOff") {
		t.Errorf("%s: %+v", w.name, s)
	}
}

// TestDontFragmentNot: without Config.DontFragment what is too long goes in
// fragments, and the socket's options are left alone.
func TestDontFragmentNot(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		for _, k := range kinds {
			w := k.world(t, 1, nil)
			msgs := w.messages(0, nil, 2000, 2000)
			if n, err := w.conn.SendMessages(nil, msgs, 0); n != 2 || err != nil {
				t.Fatalf("%s: %d, %v", k.name, n, err)
			}
			w.checkArrived(t, msgs, 2)
		}
	})
}
