// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/batchconn/batchconn"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// A scene is the sockets and messages of a load, made before the clock runs.
type scene struct {
	load
	to      []netip.AddrPort
	payload []byte
	msgs    []batchconn.OutputMessage
	net     *net.UDPConn
	auto    *batchconn.Conn
	off     *batchconn.Conn
	opened  []*net.UDPConn
}

func newScene(l load) (*scene, error) {
	s := &scene{load: l, payload: make([]byte, l.count*(*size+l.count*l.step))}
	for range l.receivers {
		r, err := s.open()
		if err != nil {
			return nil, err
		}
		s.to = append(s.to, r.LocalAddr().(*net.UDPAddr).AddrPort())
	}
	var err error
	if s.net, err = s.open(); err != nil {
		return nil, err
	}
	if s.auto, err = s.conn(batchconn.GSOAuto); err != nil {
		return nil, err
	}
	if stats := s.auto.Stats(); !stats.GSO {
		return nil, fmt.Errorf("segmentation is off: %s", stats.GSOReason)
	}
	if s.off, err = s.conn(batchconn.GSOOff); err != nil {
		return nil, err
	}
	s.write()
	return s, nil
}

// open opens a socket that nobody reads, so that the kernel drops what does not
// fit, at the same cost for every way.
func (s *scene) open() (*net.UDPConn, error) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err == nil {
		s.opened = append(s.opened, c)
	}
	return c, err
}

func (s *scene) conn(mode batchconn.GSOMode) (*batchconn.Conn, error) {
	c, err := s.open()
	if err != nil {
		return nil, err
	}
	return batchconn.New(c, &batchconn.Config{GSO: mode})
}

func (s *scene) close() {
	for _, c := range s.opened {
		c.Close()
	}
}

func (s *scene) destination(i int) netip.AddrPort { return s.to[i/s.burst%len(s.to)] }

// write makes s.msgs. Without steps they lie one behind the other in payload.
func (s *scene) write() {
	s.msgs = s.msgs[:0]
	for i := 0; i < s.count; i += s.burst {
		if s.step == 0 {
			p := s.payload[i**size : min(i+s.burst, s.count)**size]
			s.msgs = batchconn.AppendSegments(s.msgs, s.destination(i), p, *size, nil)
			continue
		}
		for j := range s.burst {
			p := s.payload[:*size+(i+j)*s.step]
			s.msgs = append(s.msgs, batchconn.OutputMessage{Addr: s.destination(i), Vectors: [][]byte{p}})
		}
	}
}

func (s *scene) ways() []way {
	plain := s.xnetMessages()
	xnet := ipv4.NewPacketConn(s.net)
	vectors, buffer := s.segmented(false), s.segmented(true)
	return append([]way{
		repeat("WriteToUDPAddrPort", s.count, s.writeTo),
		repeat("x/net WriteBatch", s.count, func() error { return writeAll(xnet, plain) }),
		repeat("SendMessages, GSOOff", s.count, func() error { return s.sendMessages(s.off) }),
		repeat("SendMessages", s.count, func() error { return s.sendMessages(s.auto) }),
		repeat("WriteBatch", s.count, func() error { return writeAll(s.auto, plain) }),
		repeat("AppendSegments", s.count, func() error {
			s.write()
			return s.sendMessages(s.auto)
		}),
		repeat("x/net, segmented by hand, n vectors", s.count, func() error { return writeAll(xnet, vectors) }),
		repeat("x/net, segmented by hand, 1 vector", s.count, func() error { return writeAll(xnet, buffer) }),
	}, s.waysInC()...)
}

func (s *scene) writeTo() error {
	for i := range s.msgs {
		if _, err := s.net.WriteToUDPAddrPort(s.msgs[i].Vectors[0], s.msgs[i].Addr); err != nil {
			return err
		}
	}
	return nil
}

func (s *scene) sendMessages(c *batchconn.Conn) error {
	_, err := c.SendMessages(nil, s.msgs, 0)
	return err
}

func writeAll(w interface {
	WriteBatch([]ipv4.Message, int) (int, error)
}, ms []ipv4.Message) error {
	for len(ms) > 0 {
		n, err := w.WriteBatch(ms, 0)
		if err != nil {
			return err
		}
		ms = ms[n:]
	}
	return nil
}

func (s *scene) xnetMessages() []ipv4.Message {
	ms := make([]ipv4.Message, len(s.msgs))
	for i, m := range s.msgs {
		ms[i] = ipv4.Message{Addr: net.UDPAddrFromAddrPort(m.Addr), Buffers: [][]byte{m.Vectors[0]}}
	}
	return ms
}

// segmented makes the messages that one would make by hand for x/net, each of
// one vector or of one for each datagram.
func (s *scene) segmented(oneVector bool) (ms []ipv4.Message) {
	if s.step != 0 {
		return nil
	}
	for i := 0; i < s.count; {
		n := min(s.burst-i%s.burst, s.count-i, 64, 65507 / *size)
		m := ipv4.Message{Addr: net.UDPAddrFromAddrPort(s.destination(i)), Buffers: [][]byte{s.payload[i**size : (i+n)**size]}}
		if !oneVector {
			m.Buffers = nil
			for j := range n {
				m.Buffers = append(m.Buffers, s.msgs[i+j].Vectors[0])
			}
		}
		if n > 1 {
			m.OOB = segmentControl(*size)
		}
		ms = append(ms, m)
		i += n
	}
	return ms
}

func segmentControl(size int) []byte {
	b := make([]byte, unix.CmsgSpace(2))
	length, ints := binary.NativeEndian.PutUint64, b[8:]
	if unix.SizeofCmsghdr == 12 {
		length, ints = func(b []byte, v uint64) { binary.NativeEndian.PutUint32(b, uint32(v)) }, b[4:]
	}
	length(b, uint64(unix.CmsgLen(2)))
	binary.NativeEndian.PutUint32(ints, unix.SOL_UDP)
	binary.NativeEndian.PutUint32(ints[4:], unix.UDP_SEGMENT)
	binary.NativeEndian.PutUint16(ints[8:], uint16(size))
	return b
}
