// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package interop

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/batchconn/batchconn/interop/wgbind"
	"golang.org/x/sync/errgroup"
	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
	"golang.zx2c4.com/wireguard/tun/tuntest"
)

// bindKinds are ways for a device to reach the network. It opens sockets
// itself.
var bindKinds = []kind{{name: "StdNetBind"}, {name: "wgbind"}}

func newBind(k kind) conn.Bind {
	if k.name == "wgbind" {
		return wgbind.New(nil)
	}
	return conn.NewStdNetBind()
}

// tunnelIPs are the addresses inside the tunnel.
var tunnelIPs = [2]netip.Addr{netip.MustParseAddr("1.0.0.1"), netip.MustParseAddr("1.0.0.2")}

// connectDevices makes two devices that are each other's peer.
func connectDevices(t *testing.T, s site, tuns [2]tun.Device) {
	t.Helper()
	var devices [2]*device.Device
	var keys [2]*ecdh.PrivateKey
	for i := range devices {
		var err error
		if keys[i], err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
			t.Fatal(err)
		}
		devices[i] = device.NewDevice(upByHand{tuns[i]}, newBind(s.kind), device.NewLogger(device.LogLevelError, ""))
		t.Cleanup(devices[i].Close)
		configure(t, devices[i], fmt.Sprintf("private_key=%x\nlisten_port=0\n", keys[i].Bytes()))
		if err := s.ends[i].do(devices[i].Up); err != nil {
			t.Fatal(err)
		}
	}
	for i, d := range devices {
		other := 1 - i
		configure(t, d, fmt.Sprintf("public_key=%x\nallowed_ip=%v/32\nendpoint=%v:%s\n",
			keys[other].PublicKey().Bytes(), tunnelIPs[other], s.ends[other].addr, setting(t, devices[other], "listen_port")))
	}
}

// An upByHand is a tun that tells of no events. On the event that it is up, a
// device opens its socket in a goroutine of its own: on a wire that was at the
// wrong end whenever it came before Up.
type upByHand struct{ tun.Device }

func (upByHand) Events() <-chan tun.Event {
	none := make(chan tun.Event)
	close(none)
	return none
}

func configure(t *testing.T, d *device.Device, settings string) {
	t.Helper()
	if err := d.IpcSet(settings); err != nil {
		t.Fatal(err)
	}
}

func setting(t *testing.T, d *device.Device, name string) string {
	t.Helper()
	settings, err := d.IpcGet()
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(settings, name+"=")
	value, _, _ := strings.Cut(rest, "\n")
	return value
}

// runWireGuardPing pings both ways through devices on tuntest's channels.
func runWireGuardPing(t *testing.T, s site) cost {
	ends := [2]*tuntest.ChannelTUN{tuntest.NewChannelTUN(), tuntest.NewChannelTUN()}
	connectDevices(t, s, [2]tun.Device{ends[0].TUN(), ends[1].TUN()})
	pingTunnel(t, ends) // the handshake
	start := begin()
	for range scaled(2000) {
		pingTunnel(t, ends)
	}
	return start.cost()
}

func pingTunnel(t *testing.T, ends [2]*tuntest.ChannelTUN) {
	t.Helper()
	for i, from := range ends {
		to := ends[1-i]
		ping := tuntest.Ping(tunnelIPs[1-i], tunnelIPs[i])
		from.Outbound <- ping
		select {
		case got := <-to.Inbound:
			if !bytes.Equal(got, ping) {
				t.Fatalf("device %d got %x, want %x", 1-i, got, ping)
			}
		case <-time.After(patience):
			t.Fatalf("device %d got nothing", 1-i)
		}
	}
}

// tunnelBatches is how many go each way.
func tunnelBatches() int { return scaled(500) }

const (
	tunnelBatch  = 64 // packets
	tunnelPacket = 1400
	tunnelWindow = 2 // batches under way in each direction; a socket with the system's default buffer holds them
)

// runWireGuardData moves packets both ways at once through devices that read
// and write batches of them, as a real tun does.
func runWireGuardData(t *testing.T, s site) cost {
	ends := [2]*batchTUN{newBatchTUN(), newBatchTUN()}
	connectDevices(t, s, [2]tun.Device{ends[0], ends[1]})
	for i := range ends { // the handshake: begun from both ends at once it can take seconds
		hello := tunnelled(byte(i), 0, make([]byte, tunnelPacket))
		ends[i].outbound <- [][]byte{hello}
		select { // the device repeats its handshake, and sends the hello after it
		case got := <-ends[1-i].inbound:
			if !bytes.Equal(got, hello) {
				t.Fatalf("device %d got %x...", 1-i, got[:28])
			}
		case <-time.After(patience):
			t.Fatalf("device %d got nothing: no handshake", 1-i)
		}
	}
	var g errgroup.Group
	start := begin()
	for i := range ends {
		g.Go(func() error { return ends[i].feed(ends[1-i], byte(i)) })
		g.Go(func() error { return ends[1-i].check(byte(i)) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return start.cost()
}

// A batchTUN is a tun whose other side is the test.
type batchTUN struct {
	outbound chan [][]byte // read by the device
	inbound  chan []byte   // written by the device
	window   chan struct{} // batches on their way here
	closed   chan struct{}
}

func newBatchTUN() *batchTUN {
	return &batchTUN{
		outbound: make(chan [][]byte),
		inbound:  make(chan []byte, tunnelWindow*tunnelBatch),
		window:   make(chan struct{}, tunnelWindow),
		closed:   make(chan struct{}),
	}
}

// tunnelled is a numbered IPv4 packet from one end of noise.
func tunnelled(from byte, number int, payload []byte) []byte {
	p := make([]byte, 20, tunnelPacket)
	p[0] = 4<<4 | 5
	binary.BigEndian.PutUint16(p[2:], tunnelPacket)
	copy(p[12:], tunnelIPs[from].AsSlice())
	copy(p[16:], tunnelIPs[1-from].AsSlice())
	p = binary.BigEndian.AppendUint64(p, uint64(number))
	return append(p, payload[:tunnelPacket-len(p)]...)
}

// feed sends batches through the device to the other end.
func (b *batchTUN) feed(to *batchTUN, from byte) error {
	payload := noise(10+from, tunnelPacket)
	for i := range tunnelBatches() {
		select {
		case to.window <- struct{}{}:
		case <-time.After(patience):
			return fmt.Errorf("batch %d from %d: the other end has stopped", i, from)
		}
		batch := make([][]byte, tunnelBatch)
		for j := range batch {
			batch[j] = tunnelled(from, i*tunnelBatch+j, payload)
		}
		b.outbound <- batch
	}
	return nil
}

// check takes what the other end's feed sent, each packet in its place.
func (b *batchTUN) check(from byte) error {
	payload := noise(10+from, tunnelPacket)
	for i := range tunnelBatches() * tunnelBatch {
		select {
		case p := <-b.inbound:
			if !bytes.Equal(p, tunnelled(from, i, payload)) {
				return fmt.Errorf("packet %d from %d is not what was sent: %s...", i, from, hex.EncodeToString(p[:min(len(p), 28)]))
			}
		case <-time.After(patience / 2):
			return fmt.Errorf("packet %d from %d does not come", i, from)
		}
		if (i+1)%tunnelBatch == 0 {
			<-b.window
		}
	}
	return nil
}

func (b *batchTUN) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	select {
	case batch := <-b.outbound:
		for i, p := range batch {
			sizes[i] = copy(bufs[i][offset:], p)
		}
		return len(batch), nil
	case <-b.closed:
		return 0, os.ErrClosed
	}
}

func (b *batchTUN) Write(bufs [][]byte, offset int) (int, error) {
	for i, p := range bufs {
		select {
		case b.inbound <- bytes.Clone(p[offset:]):
		case <-b.closed:
			return i, os.ErrClosed
		}
	}
	return len(bufs), nil
}

func (b *batchTUN) Close() error {
	close(b.closed)
	return nil
}

func (b *batchTUN) BatchSize() int           { return conn.IdealBatchSize }
func (b *batchTUN) MTU() (int, error)        { return tuntest.DefaultMTU, nil }
func (b *batchTUN) Name() (string, error)    { return "test", nil }
func (b *batchTUN) Events() <-chan tun.Event { return nil } // see upByHand
func (b *batchTUN) File() *os.File           { return nil }
