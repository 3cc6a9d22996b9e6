// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package netns

import (
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A Wire joins two networks as a cable joins two network cards: a pair of
// veth(4) interfaces, which take a segmented message apart as it leaves and
// merge datagrams as they arrive. One process holds both of its ends.
type Wire struct {
	Near *End // in the network that the wire was made from
	Far  *End // in a new one
}

// An End is an end of a [Wire]. Its sockets are made by the methods of its
// Namespace.
type End struct {
	*Namespace
	Link *Link
	IPv4 netip.Addr
	IPv6 netip.Addr // the zero Addr if the system has no IPv6
	mac  []byte
}

// Addr is the end's address of the family that network, as in "udp4" and
// "udp6", names.
func (e *End) Addr(network string) netip.Addr {
	if network[len(network)-1] == '6' {
		return e.IPv6
	}
	return e.IPv4
}

// Listen opens a socket at the end's address, at a port of the system's choice.
// The network is "udp4" or "udp6".
func (e *End) Listen(network string) (*net.UDPConn, error) {
	return e.ListenUDP(network, netip.AddrPortFrom(e.Addr(network), 0))
}

// wires counts them, for names and addresses of their own.
var wires atomic.Int32

// Wire makes a wire from the namespace to a new one. Closing it closes that
// one.
func (ns *Namespace) Wire(cfg WireConfig) (*Wire, error) {
	number := byte(wires.Add(1))
	mtu := cfg.MTU
	if mtu == 0 {
		mtu = 1500
	}
	far, err := New()
	if err != nil {
		return nil, err
	}
	w := &Wire{Near: newEnd(ns, number, 1), Far: newEnd(far, number, 2)}
	name := func(end string) string { return fmt.Sprintf("wire%d%s", number, end) }
	peer := append(linkMessage(0, 0, 0), linkAttributes(name("b"), w.Far.mac, mtu, "", nil)...)
	peer = append(peer, attributeUint32(unix.IFLA_NET_NS_FD, uint32(far.file.Fd()))...)
	const infoPeer = 1 // VETH_INFO_PEER
	pair := linkAttributes(name("a"), w.Near.mac, mtu, "veth", attribute(infoPeer, peer...))
	if w.Near.Link, err = ns.addLink(name("a"), append(linkMessage(0, 0, 0), pair...)); err != nil {
		far.Close()
		return nil, err
	}
	if w.Far.Link, err = far.Link(name("b")); err == nil {
		err = w.setUp(cfg)
	}
	if err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

func (w *Wire) setUp(cfg WireConfig) error {
	if err := w.Near.setUp(w.Far, cfg); err != nil {
		return err
	}
	if err := w.Far.setUp(w.Near, cfg); err != nil {
		return err
	}
	for _, e := range []*End{w.Near, w.Far} {
		if err := e.Link.awaitOperational(); err != nil {
			return err
		}
		if cfg.Bucket != (Bucket{}) {
			if err := e.Link.SetBucket(cfg.Bucket); err != nil {
				return err
			}
		}
	}
	return nil
}

// newEnd is an end of the wire of that number.
func newEnd(ns *Namespace, number, host byte) *End {
	e := &End{Namespace: ns, IPv4: netip.AddrFrom4([4]byte{10, 9, number, host}), mac: []byte{2, 0, 0, 0, number, host}}
	if hasIPv6() {
		e.IPv6 = netip.AddrFrom16([16]byte{0: 0xfd, 13: number, 15: host})
	}
	return e
}

// setUp makes an end do what the config says, and lets it know the other.
func (e *End) setUp(other *End, cfg WireConfig) error {
	// The segments are cut at the device: with these on they would cross whole.
	features := map[string]bool{"tx-tcp-segmentation": false, "tx-tcp6-segmentation": false, "tx-udp-segmentation": false, "rx-gro": !cfg.GROOff}
	for name, on := range features {
		if err := e.Link.SetFeature(name, on); err != nil {
			return err
		}
	}
	if cfg.FlushTimeout != 0 {
		if err := e.Link.SetFlushTimeout(cfg.FlushTimeout); err != nil {
			return err
		}
	}
	if err := e.Link.Up(); err != nil {
		return err
	}
	if err := e.address(e.IPv4, other.IPv4, 24, other.mac, cfg.RouteMTU); err != nil {
		return err
	}
	if !e.IPv6.IsValid() {
		return nil
	}
	return e.address(e.IPv6, other.IPv6, 112, other.mac, cfg.RouteMTU)
}

// address gives an end its address and the way to the other's.
func (e *End) address(own, other netip.Addr, bits int, station []byte, mtu int) error {
	if err := e.Link.AddAddr(netip.PrefixFrom(own, bits)); err != nil {
		return err
	}
	if err := e.Link.addNeighbour(other, station); err != nil {
		return err
	}
	if mtu == 0 {
		return nil
	}
	return e.AddRoute(Route{Dst: netip.PrefixFrom(other, other.BitLen()), Link: e.Link, MTU: mtu})
}

// Close takes the wire away.
func (w *Wire) Close() error {
	err := w.Near.Link.Delete()
	w.Far.Close()
	return err
}
