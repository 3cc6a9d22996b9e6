// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package main

import (
	"fmt"

	"github.com/batchconn/batchconn/bench/internal/cloop"
	"github.com/batchconn/batchconn/bench/internal/reading"
	"github.com/batchconn/batchconn/bench/internal/way"
)

// A kind is whose way it is.
type kind string

const (
	peer    kind = "peer"    // another library
	ceiling kind = "ceiling" // a loop in C
	ours    kind = "batchconn"
)

// A contender is a way of sending, of receiving or of both, with what a reader
// should know of it.
type contender struct {
	Name    string
	kind    kind
	line    string // how charts draw it
	does    string // with each datagram, as far as it tells why it is fast or slow
	rivals  []string
	send    way.Way
	receive reading.Way
}

// anybody is the rivals of what is compared with all.
var anybody = []string{"*"}

func sends(w way.Way, k kind, line, does string, rivals ...string) contender {
	return contender{w.Name, k, line, does, rivals, w, reading.Way{}}
}

func receives(w reading.Way, k kind, line, does string, rivals ...string) contender {
	return contender{w.Name, k, line, does, rivals, way.Way{}, w}
}

// both are a way of sending and one of receiving that belong together.
func both(name string, w way.Way, r reading.Way, k kind, line string, rivals ...string) contender {
	return contender{name, k, line, "both of its halves", rivals, w, r}
}

const (
	laidOut   = "what to send is laid out once and for all, before the clock runs, and each thread enters the kernel without a word to Go's scheduler"
	oneVector = laidOut + "; the kernel copies one vector faster than one for each datagram, as batchconn passes them too if they come from AppendSegments"
	stepless  = "each call of the kernel is made without a word to Go's scheduler"
)

// sending are all ways of sending; the first is what the others are compared
// with.
func sending() []contender {
	all := []contender{
		sends(way.Net, peer, lineNet, "a system call for each datagram"),
		sends(way.XNet, peer, lineXNet, "one `sendmmsg` for each batch"),
		sends(wireGuard, peer, lineWireGuard, "copies the datagrams to one destination together and segments; 128 a call, one destination a call"),
		sends(pion, peer, linePion, "copies each datagram into a batch, across calls as a Writer does, which a goroutine of its own sends by x/net"),
		sends(tailscale, peer, lineTailscale, "segments, an iovec for each datagram, by x/net; 128 a call, one destination a call"),
		sends(quicGo, peer, lineQuicGo, "one segmented `sendmsg` of at most 20 KiB that already lie together and so are one vector, one destination a call"),
		sends(way.GLib, peer, lineGLib, "called in C: one `sendmmsg` for each batch, which it makes anew of its objects each time"),
		sends(way.Sendto, ceiling, "", laidOut),
		sends(way.Sendmmsg, ceiling, "", laidOut),
		sends(way.SegmentedVectors, ceiling, lineC, laidOut),
		sends(way.Segmented, ceiling, "", oneVector),
		sends(way.SendMessages, ours, lineOurs, "", anybody...),
		sends(way.AppendSegments, ours, "", "", way.Segmented.Name),
		sends(way.WriteBatch, ours, "", "", way.XNet.Name),
		sends(way.SendEach, ours, "", ""),
		sends(way.Writer, ours, lineOurLoop, "", way.Net.Name, pion.Name),
		sends(way.SendMessagesOff, ours, "", ""),
	}
	return thoseHere(all)
}

// receiving are all ways of receiving.
func receiving() []contender {
	all := []contender{
		receives(reading.Net, peer, lineNet, "a system call for each datagram"),
		receives(reading.NetReadFrom, peer, "", "a system call for each datagram, and an address allocated"),
		receives(reading.XNet, peer, lineXNet, "one `recvmmsg` for 64 datagrams; allocates the address of each"),
		receives(reading.WireGuard, peer, lineWireGuard, "`UDP_GRO`, by x/net; reads 2 runs a call into the last of 128 buffers of 64 KiB that its caller brings, and splits them into the first"),
		receives(reading.Tailscale, peer, lineTailscale, "`UDP_GRO`, by x/net; reads 2 runs a call into the last of 128 buffers of 64 KiB that its caller brings, and splits them into the first"),
		receives(reading.QuicGo, peer, lineQuicGo, "x/net's `ReadBatch` of 8, with control messages"),
		receives(reading.Pion, peer, linePion, "x/net's `ReadBatch`"),
		receives(reading.GLib, peer, lineGLib, "called in C: one `recvmmsg` for 64 datagrams, and an object for the address of each"),
		receives(reading.Recvfrom, ceiling, "", stepless),
		receives(reading.Recvmmsg, ceiling, "", stepless),
		receives(reading.GRO, ceiling, lineC, stepless+"; always asks for 8 runs of 64 KiB, and copies each datagram out"),
		receives(reading.ConnLoop, ours, lineOurLoop, "", reading.Net.Name),
		receives(reading.ConnReadFrom, ours, "", "", reading.NetReadFrom.Name),
		receives(reading.ConnReadBatch, ours, "", "", reading.XNet.Name, reading.QuicGo.Name, reading.Pion.Name),
		receives(reading.ConnMessages, ours, lineOurs, "", anybody...),
	}
	return thoseHere(all)
}

// bothWays are pairs, one goroutine on each side.
func bothWays() []contender {
	all := []contender{
		both("net WriteTo + ReadFrom", way.Net, reading.Net, peer, lineNet),
		both("x/net WriteBatch + ReadBatch", way.XNet, reading.XNet, peer, lineXNet),
		both("wireguard-go StdNetBind", wireGuard, reading.WireGuard, peer, lineWireGuard),
		both("pion/transport BatchConn", pion, reading.Pion, peer, linePion),
		both("tailscale net/batching", tailscale, reading.Tailscale, peer, lineTailscale),
		both("quic-go's sends and reads", quicGo, reading.QuicGo, peer, lineQuicGo),
		both("GLib g_socket_*_messages", way.GLib, reading.GLib, peer, lineGLib),
		both("C sendto + recvfrom", way.Sendto, reading.Recvfrom, ceiling, ""),
		both("C sendmmsg + recvmmsg", way.Sendmmsg, reading.Recvmmsg, ceiling, ""),
		both("C UDP_SEGMENT + UDP_GRO", way.SegmentedVectors, reading.GRO, ceiling, lineC),
		both("batchconn SendMessages + ReceiveMessages", way.SendMessages, reading.ConnMessages, ours, lineOurs, anybody...),
		both("batchconn WriteBatch + ReadBatch", way.WriteBatch, reading.ConnReadBatch, ours, "", "x/net WriteBatch + ReadBatch"),
		both("batchconn Writer + ReadFrom", way.Writer, reading.ConnLoop, ours, lineOurLoop, "net WriteTo + ReadFrom", "pion/transport BatchConn"),
	}
	return thoseHere(all)
}

// contenders are those of a part.
func contenders(p part) []contender {
	switch p {
	case partSending:
		return sending()
	case partEnds:
		return bothWays()
	}
	return receiving()
}

// thoseHere leaves out what this machine, or this build, does not have.
func thoseHere(all []contender) (here []contender) {
	_, noGLib := cloop.GLib()
	for _, c := range all {
		if c.line == lineGLib && noGLib != "" || (c.kind == ceiling || c.line == lineGLib) && cloop.Missing != "" {
			continue
		}
		here = append(here, c)
	}
	return here
}

// missing says what is left out, and why.
func missing() (all []string) {
	if cloop.Missing != "" {
		return []string{"C and GLib: " + cloop.Missing}
	}
	if _, why := cloop.GLib(); why != "" {
		return []string{fmt.Sprintf("GLib: %s", why)}
	}
	return nil
}
