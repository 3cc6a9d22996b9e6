// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package main

import (
	"errors"
	"time"

	"github.com/batchconn/batchconn/bench/internal/reading"
	"github.com/batchconn/batchconn/internal/netns"
)

// onWire is a pair of veth interfaces between two networks.
const onWire = "wire"

const (
	mtu      = 1500
	jumboMTU = 9000

	// flushTimeout is how long what arrived waits to be merged, as with a network
	// card whose interrupts come late.
	flushTimeout = 50 * time.Microsecond
)

// A site is what there is to measure on.
type site struct {
	ns    *netns.Namespace // nil if there are no wires
	wires map[int]*netns.Wire
	cfg   netns.WireConfig

	notes []string // what could not be had
}

// newSite makes a wire if it can: its network is to be that of the process.
func newSite(ns *netns.Namespace) (*site, error) {
	s := &site{ns: ns, wires: map[int]*netns.Wire{}, cfg: netns.WireConfig{FlushTimeout: flushTimeout}}
	if ns == nil {
		s.notes = []string{"the wire, as there are no namespaces"}
		return s, nil
	}
	if err := ns.Loopback().SetMTU(1 << 16); err != nil { // as outside
		return nil, err
	}
	_, err := s.wire(mtu)
	if err != nil && netns.Unavailable(err) { // a timeout takes the machine's root
		s.cfg.FlushTimeout = 0
		s.notes = append(s.notes, "a wire that merges plain datagrams, as that takes root")
		_, err = s.wire(mtu)
	}
	if err != nil && netns.Unavailable(err) {
		s.ns = nil
		s.notes = []string{"the wire: " + err.Error()}
		err = nil
	}
	return s, err
}

// media are those that there are.
func (s *site) media() []string {
	if s.ns == nil {
		return []string{reading.Loopback.Name}
	}
	return []string{reading.Loopback.Name, onWire}
}

func (s *site) wire(mtu int) (w *netns.Wire, err error) {
	if w = s.wires[mtu]; w != nil {
		return w, nil
	}
	cfg := s.cfg
	cfg.MTU = mtu
	if w, err = s.ns.Wire(cfg); err == nil {
		s.wires[mtu] = w
	}
	return w, err
}

// medium is that of a work.
func (s *site) medium(w *Work) (*reading.Medium, error) {
	if w.Medium != onWire {
		return &reading.Loopback, nil
	}
	const headers = 28
	size := mtu
	if w.Size+headers > mtu {
		size = jumboMTU
	}
	wire, err := s.wire(size)
	if err != nil {
		return nil, err
	}
	return &reading.Medium{
		Name: onWire, From: wire.Near.IPv4, To: wire.Far.IPv4,
		There: wire.Far.Do, Settle: 4 * flushTimeout,
	}, nil
}

func (s *site) close() (err error) {
	for _, w := range s.wires {
		err = errors.Join(err, w.Close())
	}
	return err
}
