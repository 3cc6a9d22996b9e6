// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package sys

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"
)

// ControlFields says which fields of a Control are set, or asked for.
type ControlFields uint

const (
	ControlLocal ControlFields = 1 << iota
	ControlDst
	ControlInterface
	ControlTOS
	ControlTTL
	ControlTime
	ControlDropped
)

// controlNames are those of package batchconn's constants.
var controlNames = [...]string{
	"ControlLocal", "ControlDst", "ControlInterface", "ControlTOS", "ControlTTL", "ControlTime", "ControlDropped",
}

func (f ControlFields) String() string {
	var names []string
	for i, name := range controlNames {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	if rest := f &^ (1<<len(controlNames) - 1); rest != 0 || f == 0 {
		names = append(names, fmt.Sprintf("%#x", uint(rest)))
	}
	return strings.Join(names, "|")
}

// packetInfo is what a message with addresses says.
const packetInfo = ControlLocal | ControlDst | ControlInterface

// A Control is what control messages say, in no system's layout.
type Control struct {
	Fields            ControlFields
	Local, Dst        netip.Addr
	IfIndex, TOS, TTL int
	Time              time.Time
	Dropped           uint32
	ipv4              ControlFields // those that an IPv4 message has decided
}

// ErrControl is that of control messages which cannot be read.
var ErrControl = errors.New("control message cut short or malformed")

// Parse reads control messages into c, which is to be zero. After an error c
// holds what was said before it.
func (c *Control) Parse(b []byte) error {
	for len(b) > 0 {
		level, typ, data, rest, ok := NextControl(b)
		if !ok || !c.take(level, typ, data) {
			return ErrControl
		}
		b = rest
	}
	return nil
}

// decide reports whether a message of a family may say what fields are. Of an
// IPv4 datagram on an IPv6 socket messages of both families can come (Linux,
// udpv6_recvmsg). IPv4's say more, so they win, in whatever order they come.
func (c *Control) decide(fields ControlFields, isIPv4 bool) bool {
	if !isIPv4 && c.ipv4&fields != 0 {
		return false
	}
	if isIPv4 {
		c.ipv4 |= fields
	}
	c.Fields |= fields
	return true
}

// takeTOS reads a TOS byte or traffic class.
func (c *Control) takeTOS(data []byte, isIPv4 bool) bool {
	v, ok := smallInt(data)
	if ok && c.decide(ControlTOS, isIPv4) {
		c.TOS = v
	}
	return ok
}

// takeTTL reads a TTL or hop limit.
func (c *Control) takeTTL(data []byte, isIPv4 bool) bool {
	v, ok := smallInt(data)
	if ok && c.decide(ControlTTL, isIPv4) {
		c.TTL = v
	}
	return ok
}

// smallInt reads a byte of a header, which systems give as one or as an int.
func smallInt(data []byte) (v int, ok bool) {
	switch {
	case len(data) == 1:
		return int(data[0]), true
	case len(data) < 4:
		return 0, false
	}
	n := binary.NativeEndian.Uint32(data)
	return int(n & 0xff), n <= 0xff
}

// takeDst reads the destination in a datagram's header, from which a reply
// should come unless it is a group's. (That it is a subnet's broadcast address,
// an address does not tell.) It is zero in messages that are for sending.
func (c *Control) takeDst(addr netip.Addr, isIPv4 bool) {
	if !c.decide(ControlLocal|ControlDst, isIPv4) {
		return
	}
	addr = addr.Unmap()
	c.Local, c.Dst = addr, addr
	switch {
	case addr.IsUnspecified():
		c.Local, c.Dst = netip.Addr{}, netip.Addr{}
		c.Fields &^= ControlLocal | ControlDst
	case addr.IsMulticast() || addr == broadcast:
		c.Local = netip.Addr{}
		c.Fields &^= ControlLocal
	}
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

func (c *Control) takeInterface(index uint32, isIPv4 bool) {
	if !c.decide(ControlInterface, isIPv4) {
		return
	}
	c.IfIndex = int(index)
	if index == 0 { // the system does not know
		c.Fields &^= ControlInterface
	}
}

// takePacketInfo4 reads struct in_pktinfo of Linux, macOS and Solaris: the
// interface, the address to reply from, and the destination in the header.
func (c *Control) takePacketInfo4(data []byte) bool {
	if len(data) < 12 {
		return false
	}
	c.takeInterface(binary.NativeEndian.Uint32(data), true)
	c.takeDst(netip.AddrFrom4([4]byte(data[8:])), true)
	local := netip.AddrFrom4([4]byte(data[4:]))
	if !local.IsUnspecified() { // macOS leaves it zero
		c.Local = local
		c.Fields |= ControlLocal
	}
	return true
}

// takePacketInfo6 reads struct in6_pktinfo (RFC 3542, section 6), which is the
// same everywhere.
func (c *Control) takePacketInfo6(data []byte) bool {
	if len(data) < 20 {
		return false
	}
	c.takeDst(netip.AddrFrom16([16]byte(data)), false)
	c.takeInterface(binary.NativeEndian.Uint32(data[16:]), false)
	return true
}

// takeTime reads a time of seconds and a fraction of which there are parts in a
// second.
func (c *Control) takeTime(sec, fraction, parts int64) bool {
	if fraction < 0 || fraction >= parts {
		return false
	}
	c.Time = time.Unix(sec, fraction*(int64(time.Second)/parts))
	c.Fields |= ControlTime
	return true
}

// nativeInt reads a signed integer of 4 or 8 bytes.
func nativeInt(data []byte) int64 {
	if len(data) == 8 {
		return int64(binary.NativeEndian.Uint64(data))
	}
	return int64(int32(binary.NativeEndian.Uint32(data)))
}

func appendInt32(b []byte, level, typ, v int) []byte {
	b, data := AppendControl(b, level, typ, 4)
	binary.NativeEndian.PutUint32(data, uint32(v))
	return b
}

// source is the address to send from. It is not valid if there is none, or one
// of the other family.
func (c *Control) source(isIPv4 bool) netip.Addr {
	addr := c.Local.Unmap()
	if c.Fields&ControlLocal == 0 || addr.Is4() != isIPv4 {
		return netip.Addr{}
	}
	return addr
}

// device is the interface to send by, or 0.
func (c *Control) device() uint32 {
	if c.Fields&ControlInterface == 0 {
		return 0
	}
	return uint32(c.IfIndex)
}

// appendPacketInfo4 writes struct in_pktinfo of Linux, macOS and Solaris, if it
// says anything.
func appendPacketInfo4(b []byte, typ int, source netip.Addr, device uint32) []byte {
	if !source.IsValid() && device == 0 {
		return b
	}
	b, data := AppendControl(b, levelIPv4, typ, 12)
	binary.NativeEndian.PutUint32(data, device)
	if source.IsValid() {
		a := source.As4()
		copy(data[4:], a[:])
	}
	return b
}

// appendPacketInfo6 writes struct in6_pktinfo.
func (c *Control) appendPacketInfo6(b []byte, typ int) []byte {
	source := c.source(false)
	if !source.IsValid() && c.device() == 0 {
		return b
	}
	b, data := AppendControl(b, levelIPv6, typ, 20)
	if source.IsValid() {
		a := source.As16()
		copy(data, a[:])
	}
	binary.NativeEndian.PutUint32(data[16:], c.device())
	return b
}

// IPPROTO_IP and IPPROTO_IPV6 are the same numbers everywhere, the protocols'.
const (
	levelIPv4 = 0
	levelIPv6 = 41
)

// A controlOption makes the system add control messages to what a socket
// receives.
type controlOption struct {
	fields      ControlFields // those that it brings
	family      int           // levelIPv4 or levelIPv6: that of the datagrams; anyFamily: of both
	level, name int
	older       int // an option to set where name is not known; 0: there is none
}

const anyFamily = -1

// SetReceiveControl has a socket add control messages for the fields wanted,
// and no others of those that there are options for. What the system has no
// option for is errors.ErrUnsupported, and nothing is changed then.
func SetReceiveControl(fd uintptr, isIPv6 bool, want ControlFields) error {
	s := optionSetter{fd: fd}
	families := []int{levelIPv4}
	if isIPv6 {
		families = []int{levelIPv6}
		if only, err := getOption(fd, levelIPv6, optionV6Only); haveIPv4OptionsOnIPv6 && err == nil && only == 0 {
			families = append(families, levelIPv4)
		}
	}
	for _, family := range families {
		if missing := want &^ supportedBy(family); missing != 0 {
			return fmt.Errorf("%w: %v", errors.ErrUnsupported, missing)
		}
	}
	for i := range controlOptions {
		o := &controlOptions[i]
		if o.family == anyFamily || slices.Contains(families, o.family) {
			if err := s.apply(o, o.fields&want != 0); err != nil {
				s.undo()
				return err
			}
		}
	}
	return nil
}

// supportedBy is what there are options for.
func supportedBy(family int) (f ControlFields) {
	for i := range controlOptions {
		if o := &controlOptions[i]; o.family == anyFamily || o.family == family {
			f |= o.fields
		}
	}
	return f
}

// An optionSetter sets options of a socket, and remembers what they were.
type optionSetter struct {
	fd  uintptr
	was []optionValue
}

type optionValue struct{ level, name, value int }

func (s *optionSetter) apply(o *controlOption, on bool) error {
	err := s.set(o.level, o.name, on)
	switch {
	case o.older == 0:
	case !on: // whichever it is
		err = cmp.Or(err, s.set(o.level, o.older, on))
	case err != nil:
		err = s.set(o.level, o.older, on)
	}
	if err != nil && isNoOption(err) {
		err = fmt.Errorf("%w: %v: %w", errors.ErrUnsupported, o.fields, os.NewSyscallError("setsockopt", err))
	} else if err != nil {
		err = os.NewSyscallError("setsockopt", err)
	}
	return err
}

func (s *optionSetter) set(level, name int, on bool) error {
	was, err := getOption(s.fd, level, name)
	if err == nil && (was != 0) == on || err != nil && !on && isNoOption(err) {
		return nil
	}
	value := 0
	if on {
		value = 1
	}
	if err := setOption(s.fd, level, name, value); err != nil {
		return err
	}
	s.was = append(s.was, optionValue{level, name, was})
	return nil
}

// undo sets all back, the last first.
func (s *optionSetter) undo() {
	for i := len(s.was) - 1; i >= 0; i-- {
		o := s.was[i]
		setOption(s.fd, o.level, o.name, o.value) // was so a moment ago: cannot fail
	}
}
