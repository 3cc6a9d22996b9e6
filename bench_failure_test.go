// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
)

// BenchmarkFailing: what it costs to go on past messages that fail, beside a
// loop of WriteTo that fails as often. They go to port 0, which the kernel
// refuses sooner than anything else, so that what we add weighs most.
func BenchmarkFailing(b *testing.B) {
	for _, test := range []struct {
		name     string
		fails    func(i int) bool
		distinct bool // each that fails goes to an address of its own
	}{
		{"All", func(int) bool { return true }, false},
		{"AllDistinct", func(int) bool { return true }, true},
		{"EveryOther", func(i int) bool { return i%2 == 0 }, false},
		{"HalfAtRandom", func(int) bool { return rand.IntN(2) == 0 }, false},
		{"HalfInBursts", func(i int) bool { return i/32%2 == 0 }, false},
		{"OneInTen", func(i int) bool { return i%10 == 0 }, false},
		{"OneInHundred", func(i int) bool { return i%100 == 0 }, false},
		{"None", func(int) bool { return false }, false},
	} {
		for _, gso := range []GSOMode{GSOAuto, GSOOff} {
			b.Run(fmt.Sprintf("%s/segmented=%v", test.name, gso == GSOAuto), func(b *testing.B) {
				benchFailing(b, gso, test.fails, test.distinct)
			})
		}
	}
}

func benchFailing(b *testing.B, gso GSOMode, fails func(i int) bool, distinct bool) {
	const many = 1024
	addrs := sinks(b, 1)
	c, u := benchConn(b, &Config{GSO: gso})
	msgs, _ := messagesTo(addrs, many, 100)
	failing := 0
	for i := range msgs {
		if !fails(i) {
			continue
		}
		failing++
		msgs[i].Addr = netip.AddrPortFrom(addrs[0].Addr(), 0)
		if distinct {
			msgs[i].Addr = netip.AddrPortFrom(numbered(i), 0)
		}
	}
	told := 0
	w := NewWriter(c, &WriterConfig{MaxDelay: -1, MaxMessages: 2 * many, OnError: func(netip.AddrPort, error) { told++ }})
	alternate(b,
		sibling{"WriteTo", many, func() error { return countFailures(failing, loopWriteTo(u, msgs)) }},
		sibling{"Writer", many, func() error {
			told = 0
			for i := range msgs {
				if _, err := w.WriteToUDPAddrPort(msgs[i].Vectors[0], msgs[i].Addr); err != nil {
					return err
				}
			}
			w.Flush(nil) // returns the first error of those told
			return countFailures(failing, told)
		}},
		sibling{"SendEach", many, func() error {
			_, err := c.SendEach(nil, msgs, 0)
			var batch *BatchError
			if errors.As(err, &batch) {
				return countFailures(failing, len(batch.Failed))
			}
			return countFailures(failing, 0)
		}},
	)
}

// loopWriteTo sends each message by itself and returns how many failed. It
// keeps no error, as SendEach has to.
func loopWriteTo(u interface {
	WriteToUDPAddrPort([]byte, netip.AddrPort) (int, error)
}, msgs []OutputMessage) (failed int) {
	for i := range msgs {
		if _, err := u.WriteToUDPAddrPort(msgs[i].Vectors[0], msgs[i].Addr); err != nil {
			failed++
		}
	}
	return failed
}

func countFailures(want, got int) error {
	if got != want {
		return fmt.Errorf("%d failed, want %d", got, want)
	}
	return nil
}

// BenchmarkRefusals: what the send path asks of each destination of a run, when
// nothing was refused, when something was, and when the table is full; and what
// it costs to remember one more, which pushes out the oldest.
func BenchmarkRefusals(b *testing.B) {
	const many = 1024
	var none, one, full, added refusalTable
	one.add(numbered(0), 1000)
	for i := range maxRefusals {
		full.add(numbered(i), 1000)
		added.add(numbered(i), 1000)
	}
	next, sum := maxRefusals, 0
	lookUp := func(t *refusalTable) func() error {
		return func() error {
			for i := range many {
				sum += t.tooLarge(numbered(i * 61))
			}
			return nil
		}
	}
	alternate(b,
		sibling{"None", many, lookUp(&none)},
		sibling{"One", many, lookUp(&one)},
		sibling{"Full", many, lookUp(&full)},
		sibling{"Add", many, func() error {
			for range many {
				added.add(numbered(next), 1000)
				next++
			}
			return nil
		}},
	)
}
