// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/batchconn/batchconn/internal/sys"
	"golang.org/x/sys/unix"
)

// TestModel and FuzzModel put a batch to a Conn or a Writer, and message by
// message to a bare UDPConn: the same datagrams arrive, with the same type of
// service, and the counts, BytesSent and errors are those of the model.
func TestModel(t *testing.T) {
	m := newModels(t)
	n := 600
	if testing.Short() {
		n = 60
	}
	for seed := range n {
		data := make([]byte, 24+seed%200)
		rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(data)
		if m.compare(t, data); t.Failed() {
			t.Fatalf("of seed %d", seed)
		}
	}
}

func FuzzModel(f *testing.F) {
	m := newModels(f)
	for way := range byte(len(modelWays)) {
		for kind := range byte(len(modelKinds)) {
			f.Add([]byte{way, kind, 0, 0, 40, 3, 0, 0, 0, 3, 9, 9, 9, 1, 3, 0, 0, 0x80, 9, 9})
			f.Add([]byte{way, kind, 1, 0, 200})
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) { m.compare(t, data) })
}

var modelKinds = []kind{kinds[0], kinds[2], kinds[3]} // IPv4, dual-stack, connected

var modelWays = []struct {
	name string
	send func(p *modelPair, b *modelBatch) modelOutcome
}{
	{"SendMessages", (*modelPair).sendMessages},
	{"SendEach", (*modelPair).sendEach},
	{"WriteBatch", (*modelPair).writeBatch},
	{"SendMessage", (*modelPair).sendMessage},
	{"Writer", (*modelPair).write},
}

type models []*modelPair

// A modelPair is a Conn and a bare UDPConn of one kind, each with receivers of
// its own.
type modelPair struct {
	real, plain *world // plain.conn is not used
}

func newModels(t testing.TB) (m models) {
	for _, k := range modelKinds {
		p := &modelPair{k.world(t, 3, nil), k.world(t, 3, nil)}
		for _, w := range []*world{p.real, p.plain} {
			for _, in := range w.inboxes {
				level, name := unix.SOL_IP, unix.IP_RECVTOS
				if in.addr.Addr().Is6() {
					level, name = unix.SOL_IPV6, unix.IPV6_RECVTCLASS
				}
				if err := controlErr(in.conn, option(level, name, 1)); err != nil {
					t.Fatal(err)
				}
			}
		}
		m = append(m, p)
	}
	return m
}

// A modelBatch is what is to be sent. to is an index of a receiver, or one of
// the bad ones below.
type modelBatch struct {
	ctx      context.Context
	deadline time.Time
	flags    int
	msgs     []modelMessage
}

type modelMessage struct {
	to      int
	p       []byte
	pieces  int
	control []byte
}

const (
	toNobody = 3 + iota // the zero AddrPort
	toPortZero
	toOtherFamily
	modelDestinations
)

// A modelOutcome is all that there is to be seen.
type modelOutcome struct {
	n      int
	errs   map[int]string // by message; -1 is that of the call
	bytes  []int          // BytesSent
	tally  map[string]int // of a Writer: errors by destination
	arrive [][]string     // by receiver
}

// A modelBytes gives bytes for as long as there are any, and then zeros.
type modelBytes []byte

func (b *modelBytes) next(n int) int {
	if len(*b) == 0 {
		return 0
	}
	v := int((*b)[0]) % n
	*b = (*b)[1:]
	return v
}

var (
	modelSizes    = []int{100, 100, 1200, 0, 1, 17, 1472, 65507, 65508}
	modelFlags    = []int{0, unix.MSG_DONTWAIT, unix.MSG_NOSIGNAL, unix.MSG_CONFIRM | unix.MSG_DONTWAIT}
	modelControls = append(slices.Clone(fuzzControls), cmsg(unix.SOL_IP, 99, 1, 2, 3, 4))
)

// modelBatchOf makes a batch in which runs are frequent.
func modelBatchOf(data *modelBytes) *modelBatch {
	b := &modelBatch{ctx: context.Background(), flags: modelFlags[data.next(len(modelFlags))]}
	switch data.next(16) {
	case 1:
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		b.ctx = ctx
	case 2:
		b.deadline = time.Now().Add(-time.Second)
	case 3:
		b.deadline = time.Now().Add(time.Hour)
	}
	large := 0
	for total := data.next(120); len(b.msgs) < total; {
		m := modelMessage{pieces: data.next(4), control: modelControls[0]}
		if m.to = data.next(32); m.to >= modelDestinations {
			m.to %= 3
		}
		size := modelSizes[data.next(len(modelSizes))]
		if large += size / 10_000; large > 18 {
			size = 100
		}
		if data.next(4) == 3 {
			m.control = modelControls[data.next(len(modelControls))]
		}
		for range 1 + data.next(40) {
			m.p = contents(len(b.msgs), size)
			b.msgs = append(b.msgs, m)
			if size > 10_000 {
				break
			}
		}
		if last := &b.msgs[len(b.msgs)-1]; data.next(2) == 1 {
			last.p = last.p[:len(last.p)/2]
		}
	}
	return b
}

func (w *world) modelDestination(to int) netip.AddrPort {
	switch {
	case to == toPortZero:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)
	case to == toOtherFamily:
		return netip.MustParseAddrPort("[::1]:9")
	case to == toNobody:
		return netip.AddrPort{}
	}
	return w.dest[to%len(w.dest)]
}

func (b *modelBatch) messages(w *world) []OutputMessage {
	msgs := make([]OutputMessage, len(b.msgs))
	for i, m := range b.msgs {
		msgs[i] = OutputMessage{Addr: w.modelDestination(m.to), Vectors: cut(m.p, m.pieces), Control: m.control, BytesSent: untouched}
	}
	return msgs
}

func (m models) compare(t *testing.T, data modelBytes) {
	t.Helper()
	way, p := modelWays[data.next(len(modelWays))], m[data.next(len(m))]
	b := modelBatchOf(&data)
	if way.name == "Writer" || way.name == "WriteBatch" {
		b.ctx = context.Background()
	}
	if way.name == "Writer" {
		b.deadline = time.Time{} // it ends no datagram that was taken
	}
	p.real.conn.SetWriteDeadline(b.deadline)
	p.plain.bare.SetWriteDeadline(b.deadline)
	got := way.send(p, b)
	got.arrive = p.real.modelArrivals(t)
	want := p.model(b, way.name)
	want.arrive = p.plain.modelArrivals(t)
	if diff := got.diff(want); diff != "" {
		t.Errorf("%s of %d messages on %s: %s", way.name, len(b.msgs), p.real.name, diff)
	}
}

func (o modelOutcome) diff(want modelOutcome) string {
	if o.n != want.n || fmt.Sprint(o.errs) != fmt.Sprint(want.errs) {
		return fmt.Sprintf("n = %d, errors %v; by the model %d, %v", o.n, o.errs, want.n, want.errs)
	}
	if !maps.Equal(o.tally, want.tally) {
		return fmt.Sprintf("reported %v; by the model %v", o.tally, want.tally)
	}
	if !slices.Equal(o.bytes, want.bytes) {
		return fmt.Sprintf("BytesSent %d; by the model %d", o.bytes, want.bytes)
	}
	for i := range want.arrive {
		got, want := o.arrive[i], want.arrive[i]
		for j := range min(len(got), len(want)) {
			if got[j] != want[j] {
				return fmt.Sprintf("at receiver %d datagram %d is %s, by the model %s", i, j, got[j], want[j])
			}
		}
		if len(got) != len(want) {
			return fmt.Sprintf("at receiver %d %d datagrams arrived, by the model %d", i, len(got), len(want))
		}
	}
	return ""
}

// modelArrivals reads what has arrived at each receiver.
func (w *world) modelArrivals(t *testing.T) [][]string {
	t.Helper()
	all := make([][]string, len(w.inboxes))
	p, oob := make([]byte, 1<<16), make([]byte, 64)
	for i, in := range w.inboxes {
		marker := w.socketTo(t, in)
		if _, err := marker.Write(endMark); err != nil {
			t.Fatal(err)
		}
		for {
			in.conn.SetReadDeadline(time.Now().Add(patience))
			n, oobn, _, _, err := in.conn.ReadMsgUDPAddrPort(p, oob)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Equal(p[:n], endMark) {
				break
			}
			all[i] = append(all[i], fmt.Sprintf("%d %.8q tos %d", n, p[:n], modelTOS(t, oob[:oobn])))
		}
		marker.Close()
	}
	return all
}

// socketTo is one from which an inbox reads; a connected receiver's peer would
// be another.
func (w *world) socketTo(t *testing.T, in *inbox) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(in.addr))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func modelTOS(t *testing.T, oob []byte) int {
	t.Helper()
	cms, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(cms) != 1 || len(cms[0].Data) == 0 {
		t.Fatalf("control data % x: %v", oob, err)
	}
	if len(cms[0].Data) >= 4 {
		return int(binary.NativeEndian.Uint32(cms[0].Data))
	}
	return int(cms[0].Data[0])
}

// model sends the batch by one call of package net for each message. What is
// over before it began is so before a message is looked at.
func (p *modelPair) model(b *modelBatch, way string) modelOutcome {
	o := modelOutcome{errs: map[int]string{}, bytes: slices.Repeat([]int{untouched}, len(b.msgs))}
	if err := b.ctx.Err(); err != nil {
		o.errs[-1] = modelClass(err)
		return o
	}
	if len(b.msgs) > 0 && !b.deadline.IsZero() && b.deadline.Before(time.Now()) {
		o.errs[-1] = modelClass(os.ErrDeadlineExceeded)
		return o
	}
	for i, m := range b.msgs {
		n, _, err := p.plain.bare.WriteMsgUDPAddrPort(m.p, m.control, p.plain.modelDestination(m.to))
		if err != nil && way == "Writer" && sys.HaveBatchCall && bytes.Equal(m.control, ownSegments) {
			err = p.modelPieces(m, err)
		}
		if err == nil {
			o.bytes[i] = n
			o.n++
			continue
		}
		if way == "SendMessages" || way == "WriteBatch" {
			if o.n == 0 {
				o.errs[-1] = modelClass(err)
			}
			break
		}
		o.errs[i] = modelClass(err)
	}
	if way == "Writer" {
		t := modelOutcome{tally: map[string]int{}}
		for i, class := range o.errs {
			to := p.real.modelDestination(b.msgs[i].to)
			if len(b.msgs[i].p) > 65507 && !to.Addr().Unmap().Is6() && class == modelClass(unix.EINVAL) {
				class = modelClass(unix.EMSGSIZE) // which it sees before the kernel sees the port or the control data
			}
			t.tally[to.String()+": "+class]++
		}
		return t
	}
	return o
}

// ownSegments is the control message of those that the user segments.
var ownSegments = cmsg(unix.SOL_UDP, unix.UDP_SEGMENT, uint16s(ownSize)...)

// modelPieces sends a message in the pieces that the kernel refused to make
// with err, unless it would be too long as one datagram.
func (p *modelPair) modelPieces(m modelMessage, err error) error {
	if len(m.p) > 65507 && !p.plain.modelDestination(m.to).Addr().Unmap().Is6() {
		return err
	}
	if len(m.p) == 0 {
		_, _, err = p.plain.bare.WriteMsgUDPAddrPort(nil, nil, p.plain.modelDestination(m.to))
		return err
	}
	for piece := range slices.Chunk(m.p, ownSize) {
		if _, _, err := p.plain.bare.WriteMsgUDPAddrPort(piece, nil, p.plain.modelDestination(m.to)); err != nil {
			return err
		}
	}
	return nil
}

// modelClass is the kind of an error, in which package net and this one agree.
func modelClass(err error) string {
	var addr *net.AddrError
	switch {
	case err == nil:
		return ""
	case strings.Contains(err.Error(), "missing address"), errors.Is(err, unix.EDESTADDRREQ):
		return "no destination"
	case errors.As(err, &addr):
		return "address"
	}
	for _, is := range []error{net.ErrWriteToConnected, os.ErrDeadlineExceeded, context.Canceled, unix.EMSGSIZE, unix.EINVAL} {
		if errors.Is(err, is) {
			return is.Error()
		}
	}
	return err.Error()
}

func (o *modelOutcome) end(n int, err error, msgs []OutputMessage) {
	o.n = n
	if err != nil {
		o.errs[-1] = modelClass(err)
	}
	o.bytes = make([]int, len(msgs))
	for i := range msgs {
		o.bytes[i] = msgs[i].BytesSent
	}
}

func (p *modelPair) sendMessages(b *modelBatch) modelOutcome {
	o, msgs := modelOutcome{errs: map[int]string{}}, b.messages(p.real)
	n, err := p.real.conn.SendMessages(b.ctx, msgs, b.flags)
	o.end(n, err, msgs)
	return o
}

func (p *modelPair) writeBatch(b *modelBatch) modelOutcome {
	o, msgs := modelOutcome{errs: map[int]string{}}, b.messages(p.real)
	ms := xnetMessages(msgs)
	n, err := p.real.conn.WriteBatch(ms, b.flags)
	for i := range msgs {
		msgs[i].BytesSent = ms[i].N
	}
	o.end(n, err, msgs)
	return o
}

func (p *modelPair) sendEach(b *modelBatch) modelOutcome {
	o, msgs := modelOutcome{errs: map[int]string{}}, b.messages(p.real)
	n, err := p.real.conn.SendEach(b.ctx, msgs, b.flags)
	var batch *BatchError
	if errors.As(err, &batch) {
		for _, f := range batch.Failed {
			o.errs[f.Index] = modelClass(f.Err)
		}
		err = batch.Err
	}
	o.end(n-len(o.errs), err, msgs)
	return o
}

func (p *modelPair) sendMessage(b *modelBatch) modelOutcome {
	o, msgs := modelOutcome{errs: map[int]string{}}, b.messages(p.real)
	n := 0
	var end error
	for i := range msgs {
		bytes, err := p.real.conn.SendMessage(b.ctx, &msgs[i], b.flags)
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.Canceled) {
			end = err
			break
		}
		if err != nil {
			o.errs[i] = modelClass(err)
			continue
		}
		if bytes != msgs[i].BytesSent {
			o.errs[i] = fmt.Sprint(bytes, " is not BytesSent")
		}
		n++
	}
	if len(msgs) == 0 {
		end = b.ctx.Err()
	}
	o.end(n, end, msgs)
	return o
}

// write goes through a Writer, which says of late errors only the destination.
func (p *modelPair) write(b *modelBatch) modelOutcome {
	o := modelOutcome{tally: map[string]int{}}
	w := NewWriter(p.real.conn, &WriterConfig{MaxDelay: -1, MaxBytes: 4 << 20, OnError: func(to netip.AddrPort, err error) { o.count(to, err) }})
	for _, m := range b.msgs {
		to := p.real.modelDestination(m.to)
		if _, _, err := w.WriteMsgUDPAddrPort(m.p, m.control, to); err != nil {
			o.count(to, err)
		}
	}
	w.Flush(nil)
	return o
}

func (o *modelOutcome) count(to netip.AddrPort, err error) {
	o.tally[to.String()+": "+modelClass(err)]++
}

// ownSize is the segment size of fuzzed messages that the user segments: none
// of ours, and none of fuzzSizes. The planner's model leaves them whole.
const ownSize = 100

var fuzzControls = [][]byte{
	nil,
	cmsgInt(unix.SOL_IP, unix.IP_TOS, 8),
	cmsgInt(unix.SOL_IP, unix.IP_TOS, 16),
	append(cmsgInt(unix.SOL_IP, unix.IP_TTL, 8), cmsg(unix.SOL_IP, unix.IP_TOS, 4)...),
	cmsg(unix.SOL_IP, unix.IP_TOS, 4)[:unix.CmsgLen(1)], // without the padding
	cmsg(unix.SOL_UDP, unix.UDP_SEGMENT, uint16s(ownSize)...),
	cmsgInt(unix.SOL_SOCKET, unix.SO_TIMESTAMPING, 2),
	{1, 2, 3},
}
