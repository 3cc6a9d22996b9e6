// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

// Package netns gives tests and measurements networks of their own: loopbacks
// that fill up, and wires that cut and merge datagrams as network cards do.
//
// It is for Linux. It needs no privilege, no configuration of the machine and
// no other program: [Run] starts a test again in a process with a network
// namespace of its own and, unless it is root already, a user namespace, in
// which that process may do what root may, user_namespaces(7). Everything goes
// with the process, and nothing here touches the network of the machine. Only a
// [WireConfig.FlushTimeout] is for root alone. On other systems the package
// compiles, and what it returns Is [errors.ErrUnsupported].
//
// An error names what failed and carries what the kernel says about it. Where
// namespaces, a device or a queueing discipline cannot be had, that is not a
// failure of what is tested: see [Unavailable] and [Check].
package netns

import (
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A Bucket is a token bucket, tc-tbf(8), through which all passes that leaves
// by a link.
type Bucket struct {
	Rate  uint32 // bytes a second, at least 1
	Burst uint32 // bytes that pass at once after a pause
	Limit uint32 // bytes that wait at most; what comes on top is dropped
}

// A Route says where packets to a destination go.
type Route struct {
	Dst   netip.Prefix
	Via   netip.Addr // the gateway; zero: Dst is on the link itself
	Link  *Link
	MTU   int // of this route; 0: the link's
	Table int // 1 to 252, which only a [Rule] leads to; 0: the main table
}

// A Rule has packets with a mark, socket(7), looked up in a table of routes.
type Rule struct {
	IPv6  bool
	Mark  uint32
	Table int
}

// A WireConfig says what a [Wire] is like, both ways. Its zero value is a wire
// of MTU 1500 that merges what arrives together.
type WireConfig struct {
	MTU      int // 0: 1500
	RouteMTU int // of the routes to the other end; 0: the wire's

	// GROOff keeps arriving datagrams apart.
	GROOff bool

	// FlushTimeout is how long what arrived waits for more to be merged with
	// (gro_flush_timeout). With 0 only what left in one segmented message is
	// merged again, as datagrams cross this wire one by one and at once; with
	// some 50 microseconds plain ones are too, as by a network card whose
	// interrupts come late. It takes a root that is the machine's.
	FlushTimeout time.Duration

	// Bucket limits what leaves each end. Zero: no limit.
	Bucket Bucket
}

// Unavailable tells whether err means that this system, or this user, has no
// namespaces, or not the device, the queueing discipline or the file that was
// asked for.
func Unavailable(err error) bool {
	var missing *missingError
	return errors.Is(err, errors.ErrUnsupported) || errors.As(err, &missing) ||
		errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EROFS)
}

// A missingError is about what this kernel does not have.
type missingError struct{ error }

func (e *missingError) Unwrap() error { return e.error }

// Check ends the test if err is not nil: it is skipped if what it needs is
// [Unavailable], and has failed otherwise.
func Check(t testing.TB, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if Unavailable(err) {
		t.Skipf("not to be had here: %v", err)
	}
	t.Fatal(err)
}

// Relayed is what a test printed, without what would look like a result of the
// test that relays it.
func Relayed(out string) string {
	var text strings.Builder
	for line := range strings.Lines(out) {
		bare := strings.TrimLeft(line, " ")
		if strings.HasPrefix(bare, "=== ") || strings.HasPrefix(bare, "--- PASS") || bare == "PASS\n" {
			continue
		}
		text.WriteString(line[:len(line)-len(bare)] + strings.TrimPrefix(bare, "--- "))
	}
	return strings.TrimSpace(text.String())
}
