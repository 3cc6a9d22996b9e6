// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package interop

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/batchconn/batchconn"
	"github.com/pion/ice/v4"
	"github.com/pion/rtp"
	"github.com/pion/transport/v5/udp"
	"github.com/pion/webrtc/v4"
	"golang.org/x/sync/errgroup"
)

// muxKinds are what ice.UDPMux runs on: besides our kinds pion's own batching
// connection.
var muxKinds = append(kinds[:len(kinds):len(kinds)],
	kind{"pion's BatchConn", func(_ testing.TB, c *net.UDPConn, _ func(netip.AddrPort, error)) net.PacketConn {
		return udp.NewBatchConn(c, 64, time.Millisecond)
	}},
)

// The mux reads and writes without an allocation for each address where it
// finds these methods.
var _, _ ice.AddrPortReaderWriter = (*batchconn.Conn)(nil), (*batchconn.Writer)(nil)

// newPeer is a peer connection behind a mux of its own, all on one port.
func newPeer(t *testing.T, c net.PacketConn) *webrtc.PeerConnection {
	t.Helper()
	mux := ice.NewUDPMuxDefault(ice.UDPMuxParams{UDPConn: c})
	t.Cleanup(func() { mux.Close() })
	var s webrtc.SettingEngine
	s.SetICEUDPMux(mux)
	s.SetIncludeLoopbackCandidate(true)
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.DetachDataChannels()
	var m webrtc.MediaEngine
	if err := m.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	p, err := webrtc.NewAPI(webrtc.WithSettingEngine(s), webrtc.WithMediaEngine(&m)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.GracefulClose() })
	return p
}

// connectPeers exchanges the descriptions of two peers and waits until both are
// connected.
func connectPeers(t *testing.T, a, b *webrtc.PeerConnection) {
	t.Helper()
	connected := make(chan struct{}, 2)
	for _, p := range []*webrtc.PeerConnection{a, b} {
		p.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
			if s == webrtc.PeerConnectionStateConnected {
				connected <- struct{}{}
			}
		})
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	offer, err := a.CreateOffer(nil)
	must(err)
	gathered := webrtc.GatheringCompletePromise(a)
	must(a.SetLocalDescription(offer))
	<-gathered
	must(b.SetRemoteDescription(*a.LocalDescription()))
	answer, err := b.CreateAnswer(nil)
	must(err)
	gathered = webrtc.GatheringCompletePromise(b)
	must(b.SetLocalDescription(answer))
	<-gathered
	must(a.SetRemoteDescription(*b.LocalDescription()))
	for range 2 {
		select {
		case <-connected:
		case <-time.After(patience):
			t.Fatal("the peers do not connect")
		}
	}
}

// channelBytes is what goes each way.
func channelBytes() int { return scaled(8<<20) / channelMessage * channelMessage }

const channelMessage = 16 << 10

// runWebRTCData sends both ways at once through a data channel.
func runWebRTCData(t *testing.T, s site) cost {
	a, b := newPeer(t, s.open(t, near)), newPeer(t, s.open(t, far))
	ends := make(chan io.ReadWriter, 2)
	detach := func(d *webrtc.DataChannel) {
		d.OnOpen(func() {
			end, err := d.Detach()
			if err != nil {
				t.Error(err)
			}
			ends <- end
		})
	}
	b.OnDataChannel(detach)
	d, err := a.CreateDataChannel("data", nil)
	if err != nil {
		t.Fatal(err)
	}
	detach(d)
	connectPeers(t, a, b)
	x, y := <-ends, <-ends
	data := noise(20, channelBytes())
	start := begin()
	var g errgroup.Group
	for _, end := range []io.ReadWriter{x, y} {
		g.Go(func() error { return writeMessages(end, data) })
		g.Go(func() error { return readMessages(end, data) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return start.cost()
}

func mediaPackets() uint16 { return uint16(scaled(10_000)) }

const (
	mediaPayload = 1000
	mediaWindow  = 64 // packets under way: RTP repeats none
)

// runWebRTCMedia sends one track.
func runWebRTCMedia(t *testing.T, s site) cost {
	a, b := newPeer(t, s.open(t, near)), newPeer(t, s.open(t, far))
	track, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8}, "video", "stream")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.AddTrack(track); err != nil {
		t.Fatal(err)
	}
	tracks := make(chan *webrtc.TrackRemote, 1)
	b.OnTrack(func(t *webrtc.TrackRemote, _ *webrtc.RTPReceiver) { tracks <- t })
	connectPeers(t, a, b)
	remote, first := startTrack(t, track, tracks)
	window := make(chan struct{}, mediaWindow)
	ctx := withPatience(t)
	start := begin()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return writeTrack(ctx, track, first, window) })
	g.Go(func() error { return readTrack(remote, first, window) })
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return start.cost()
}

// mediaPacket is the packet with a sequence number, with noise of its own.
func mediaPacket(seq uint16, payload []byte) *rtp.Packet {
	binary.BigEndian.PutUint16(payload, seq)
	return &rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: seq, Timestamp: uint32(seq) * 90}, Payload: payload}
}

// startTrack sends packets until the other end has heard of the track, and says
// which sequence number is next.
func startTrack(t *testing.T, track *webrtc.TrackLocalStaticRTP, tracks <-chan *webrtc.TrackRemote) (remote *webrtc.TrackRemote, next uint16) {
	t.Helper()
	payload := noise(21, mediaPayload)
	for end := time.Now().Add(patience); time.Now().Before(end); next++ {
		if err := track.WriteRTP(mediaPacket(next, payload)); err != nil {
			t.Fatal(err)
		}
		select {
		case remote := <-tracks:
			return remote, next + 1
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Fatal("the other end does not hear of the track")
	return nil, 0
}

func writeTrack(ctx context.Context, track *webrtc.TrackLocalStaticRTP, first uint16, window chan<- struct{}) error {
	payload := noise(21, mediaPayload)
	for i := range mediaPackets() {
		select {
		case window <- struct{}{}:
		case <-ctx.Done():
			return fmt.Errorf("packet %d: %w", i, ctx.Err())
		}
		if err := track.WriteRTP(mediaPacket(first+i, payload)); err != nil {
			return fmt.Errorf("packet %d: %w", i, err)
		}
	}
	return nil
}

// readTrack expects each packet from the first on, in order; those before it
// only announced the track.
func readTrack(track *webrtc.TrackRemote, first uint16, window <-chan struct{}) error {
	payload := noise(21, mediaPayload)
	for next := first; next != first+mediaPackets(); {
		track.SetReadDeadline(time.Now().Add(patience / 2))
		p, _, err := track.ReadRTP()
		if err != nil {
			return fmt.Errorf("packet %d: %w", next-first, err)
		}
		if int16(p.SequenceNumber-first) < 0 {
			continue
		}
		want := mediaPacket(next, payload)
		if p.SequenceNumber != next || p.Timestamp != want.Timestamp || !bytes.Equal(p.Payload, want.Payload) {
			return fmt.Errorf("packet %d is not what was sent: sequence number %d", next-first, p.SequenceNumber-first)
		}
		next++
		<-window
	}
	return nil
}
