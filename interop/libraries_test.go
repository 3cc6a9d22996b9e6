// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package interop

import "testing"

// A library is unmodified and runs on connections of each kind at a site, end
// to end, and checks what arrives. It returns the cost of the work without its
// set-up, or nothing if that is not what it is about.
type library struct {
	name  string
	kinds []kind // nil: kinds
	run   func(t *testing.T, s site) cost
}

var libraries = []library{
	{"quic-go, 64 MiB each way", nil, runQUIC},
	{"quic-go, 200 connections", nil, runQUICConns},
	{"quic-go, aborts", nil, runQUICAbort},
	{"quic-go, HTTP3 download", nil, runHTTP3},
	{"x net quic", nil, runXNetQUIC},
	{"pion dtls", nil, runDTLS},
	{"pion webrtc, data", muxKinds, runWebRTCData},
	{"pion webrtc, media", muxKinds, runWebRTCMedia},
	{"pion sctp", nil, runSCTP},
	{"pion stun", nil, runSTUN},
	{"pion turn", nil, runTURN},
	{"pion rtp, packets to 500", nil, runRTPPackets},
	{"pion rtp, frames to 500", nil, runRTPFrames},
	{"pion rtp, refused", nil, runRTPRefused},
	{"miekg dns, server", nil, runDNSServer},
	{"miekg dns, client", nil, runDNSClient},
	{"net Resolver.Dial", nil, runResolver},
	{"gosnmp", nil, runSNMP},
	{"insomniacslk dhcp", nil, runDHCP},
	{"layeh radius, server", nil, runRADIUS},
	{"datadog-go statsd", nil, runStatsd},
	{"sipgo", nil, runSIP},
	{"kcp-go", kcpKinds, runKCP},
	{"go-libp2p", nil, runLibp2p},
	{"wireguard-go, pings", bindKinds, runWireGuardPing},
	{"wireguard-go, data", bindKinds, runWireGuardData},
}

func runLibraries(t *testing.T, n network) {
	t.Helper()
	for _, l := range libraries {
		t.Run(l.name, func(t *testing.T) {
			on := l.kinds
			if on == nil {
				on = kinds
			}
			onEach(t, n, on, l.run)
		})
	}
}

func TestLoopback(t *testing.T) { runLibraries(t, loopback) }
