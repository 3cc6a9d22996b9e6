// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Link is a network interface of a [Namespace].
type Link struct {
	ns    *Namespace
	name  string
	index int32
}

// Link is the interface of that name.
func (ns *Namespace) Link(name string) (*Link, error) {
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		err = unix.IoctlIfreq(ns.ctl, unix.SIOCGIFINDEX, ifr)
	}
	if err != nil {
		return nil, fmt.Errorf("netns: find interface %q: %w", name, err)
	}
	return &Link{ns: ns, name: name, index: int32(ifr.Uint32())}, nil
}

// Loopback is the namespace's lo. As it comes up the kernel gives it 127.0.0.1
// and, where the system has IPv6, ::1.
func (ns *Namespace) Loopback() *Link { return ns.lo }

// addLink makes the interface that a request asks for.
func (ns *Namespace) addLink(name string, request []byte) (*Link, error) {
	if err := ns.rt.request(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, request); err != nil {
		return nil, fmt.Errorf("netns: make interface %q: %w", name, err)
	}
	return ns.Link(name)
}

// linkAttributes are those of an interface to be made; kind is its driver. No
// address, an MTU of 0 and no driver are left to the kernel.
func linkAttributes(name string, address []byte, mtu int, kind string, data []byte) []byte {
	m := attributeString(unix.IFLA_IFNAME, name)
	if address != nil {
		m = append(m, attribute(unix.IFLA_ADDRESS, address...)...)
	}
	if mtu != 0 {
		m = append(m, attributeUint32(unix.IFLA_MTU, uint32(mtu))...)
	}
	if kind != "" {
		info := attributeString(unix.IFLA_INFO_KIND, kind)
		if data != nil {
			info = append(info, attribute(unix.IFLA_INFO_DATA, data...)...)
		}
		m = append(m, attribute(unix.IFLA_LINKINFO, info...)...)
	}
	return m
}

// linkMessage is a struct ifinfomsg.
func linkMessage(index int32, flags, change uint32) []byte {
	return appendUint32([]byte{unix.AF_UNSPEC, 0, 0, 0}, uint32(index), flags, change)
}

// Name is the interface's.
func (l *Link) Name() string { return l.name }

// Index is the interface's, as in zones and control messages.
func (l *Link) Index() int { return int(l.index) }

// Up brings the interface up.
func (l *Link) Up() error {
	return l.wrap("bring up", l.ns.rt.request(unix.RTM_NEWLINK, 0, linkMessage(l.index, unix.IFF_UP, unix.IFF_UP)))
}

// Down takes the interface down.
func (l *Link) Down() error {
	return l.wrap("take down", l.ns.rt.request(unix.RTM_NEWLINK, 0, linkMessage(l.index, 0, unix.IFF_UP)))
}

// awaitOperational waits until what is sent by the interface leaves: its queue
// opens a moment after the cable is there at both ends.
func (l *Link) awaitOperational() error {
	const operUp = 6 // IF_OPER_UP
	return l.wrap("wait for", await("it is not operational", func() (bool, error) {
		answer, err := l.ns.rt.exchange(unix.RTM_GETLINK, 0, linkMessage(l.index, 0, 0))
		if err != nil || len(answer) < unix.SizeofIfInfomsg {
			return false, err
		}
		state := findAttribute(answer[unix.SizeofIfInfomsg:], unix.IFLA_OPERSTATE)
		return len(state) == 1 && state[0] == operUp, nil
	}))
}

// Delete removes the interface, and with it the other end of a wire.
func (l *Link) Delete() error {
	return l.wrap("delete", l.ns.rt.request(unix.RTM_DELLINK, 0, linkMessage(l.index, 0, 0)))
}

// SetMTU sets the longest IP packet, in bytes.
func (l *Link) SetMTU(mtu int) error {
	m := append(linkMessage(l.index, 0, 0), attributeUint32(unix.IFLA_MTU, uint32(mtu))...)
	return l.wrap(fmt.Sprintf("set MTU %d of", mtu), l.ns.rt.request(unix.RTM_NEWLINK, 0, m))
}

// AddAddr gives the interface, which is up, an address and the network that the
// prefix tells. When it returns the address is of use.
func (l *Link) AddAddr(p netip.Prefix) error {
	what, a := fmt.Sprintf("add %v to", p), p.Addr().AsSlice()
	m := []byte{family(p.Addr()), byte(p.Bits()), unix.IFA_F_NODAD, unix.RT_SCOPE_UNIVERSE} // struct ifaddrmsg
	m = appendUint32(m, uint32(l.index))
	m = append(m, attribute(unix.IFA_LOCAL, a...)...)
	m = append(m, attribute(unix.IFA_ADDRESS, a...)...)
	if err := l.ns.rt.request(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, m); err != nil {
		return l.wrap(what, err)
	}
	// An IPv6 address is taken for the host's a moment later (addrconf_dad_work).
	return l.wrap(what, await("it is not the host's", func() (bool, error) { return l.ns.isLocal(p.Addr()) }))
}

// isLocal tells whether what comes for an address is the host's.
func (ns *Namespace) isLocal(a netip.Addr) (bool, error) {
	m := []byte{family(a), byte(a.BitLen()), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0} // struct rtmsg
	answer, err := ns.rt.exchange(unix.RTM_GETROUTE, 0, append(m, attribute(unix.RTA_DST, a.AsSlice()...)...))
	if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) {
		return false, nil
	}
	return len(answer) >= unix.SizeofRtMsg && answer[7] == unix.RTN_LOCAL, err
}

// await waits for what the kernel does a moment after it was asked for.
func await(orElse string, done func() (bool, error)) error {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if ok, err := done(); ok || err != nil {
			return err
		}
	}
	return errors.New(orElse)
}

// addNeighbour says which station has an address, so that none is asked for:
// what is sent meanwhile is queued or lost.
func (l *Link) addNeighbour(a netip.Addr, station []byte) error {
	m := appendUint32([]byte{family(a), 0, 0, 0}, uint32(l.index)) // struct ndmsg
	m = append(appendUint16(m, unix.NUD_PERMANENT), 0, 0)
	m = append(m, attribute(unix.NDA_DST, a.AsSlice()...)...)
	m = append(m, attribute(unix.NDA_LLADDR, station...)...)
	return l.wrap(fmt.Sprintf("add neighbour %v to", a), l.ns.rt.request(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, m))
}

// SetBucket puts a token bucket before all that leaves from now on, and in
// place of an earlier one: what waits there stays and goes on at the new rate.
func (l *Link) SetBucket(b Bucket) error {
	err := l.ns.rt.request(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, b.message(l.index))
	if err != nil {
		return l.wrap("put a token bucket before", ifErrno(err, unix.ENOENT)) // the kernel has no tbf
	}
	// The bucket looks at its new rate when its timer fires, by the old rate,
	// or when a packet comes.
	return l.wrap("wake the token bucket of", l.nudge())
}

// RemoveBucket takes the token bucket away and drops what waits there.
func (l *Link) RemoveBucket() error {
	return l.wrap("take the token bucket from", l.ns.rt.request(unix.RTM_DELQDISC, 0, trafficMessage(l.index)))
}

// nudge sends an empty datagram to all hosts of the network, port 9 (discard).
// It takes no descriptor, of which a test may have left none.
func (l *Link) nudge() error {
	info := unix.PktInfo4(&unix.Inet4Pktinfo{Ifindex: l.index})
	to := unix.SockaddrInet4{Addr: [4]byte{224, 0, 0, 1}, Port: 9}
	err := unix.Sendmsg(l.ns.ctl, nil, info, &to, unix.MSG_DONTWAIT)
	if err == unix.ENOBUFS { // the bucket is full: it has looked up all the same
		return nil
	}
	return os.NewSyscallError("sendmsg", err)
}

// trafficMessage is a struct tcmsg: handle 1: at the root.
func trafficMessage(index int32) []byte {
	const handle, root = 0x10000, 0xffffffff // TC_H_ROOT
	return appendUint32([]byte{unix.AF_UNSPEC, 0, 0, 0}, uint32(index), handle, root, 0)
}

// message is what sets the bucket (linux/pkt_sched.h).
func (b Bucket) message(index int32) []byte {
	const (
		parms, burst = 1, 6 // TCA_TBF_PARMS, TCA_TBF_BURST
		ethernet     = 1    // TC_LINKLAYER_ETHERNET: no rate table wanted
	)
	qopt := []byte{0, ethernet, 0, 0, 0, 0, 0, 0} // struct tc_tbf_qopt; begins with a tc_ratespec
	qopt = appendUint32(qopt, b.Rate)
	qopt = appendUint32(qopt, 0, 0, 0)       // no peak rate
	qopt = appendUint32(qopt, b.Limit, 0, 0) // the burst is told in bytes below
	options := append(attribute(parms, qopt...), attributeUint32(burst, b.Burst)...)
	m := append(trafficMessage(index), attributeString(unix.TCA_KIND, "tbf")...)
	return append(m, attribute(unix.TCA_OPTIONS, options...)...)
}

// SetFlushTimeout sets gro_flush_timeout: how long what arrived by the
// interface waits for more to be merged with. It takes a root that is the
// machine's: the kernel wants CAP_NET_ADMIN of it, not of the namespace.
func (l *Link) SetFlushTimeout(d time.Duration) error {
	return l.wrap("set gro_flush_timeout of", l.writeSysfs("gro_flush_timeout", strconv.FormatInt(d.Nanoseconds(), 10)))
}

// writeSysfs writes a file of the interface's in sysfs. The machine's /sys
// shows the machine's network, and that of a namespace must be mounted in it.
func (l *Link) writeSysfs(file, value string) error {
	written := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its mounts
		written <- l.ns.Do(func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
				return fmt.Errorf("unshare mounts: %w", err)
			}
			if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
				return fmt.Errorf("make mounts private: %w", err)
			}
			if err := unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
				return fmt.Errorf("mount sysfs: %w", err)
			}
			return os.WriteFile("/sys/class/net/"+l.name+"/"+file, []byte(value), 0)
		})
	}()
	return <-written
}

// SetFeature turns an offload on or off, by the name that `ethtool -k` has for
// its parts, as "rx-gro", "tx-tcp-segmentation" and "tx-udp-segmentation".
func (l *Link) SetFeature(name string, on bool) error {
	what := fmt.Sprintf("set feature %s=%v of", name, on)
	number, count, err := l.feature(name)
	if err != nil {
		return l.wrap(what, err)
	}
	// struct ethtool_sfeatures: for each 32 features those that are meant, and
	// of these those that are wanted.
	words := make([]uint32, 2+(count+31)/32*2)
	words[0], words[1] = unix.ETHTOOL_SFEATURES, uint32(count+31)/32
	words[2+number/32*2] = 1 << (number % 32)
	if on {
		words[3+number/32*2] = 1 << (number % 32)
	}
	did, err := l.ethtool(unsafe.Pointer(&words[0]))
	if err == nil && did&1 != 0 { // ETHTOOL_F_UNSUPPORTED
		err = &missingError{errors.New("the interface cannot")}
	}
	return l.wrap(what, err)
}

// feature is the number of a feature and how many there are.
func (l *Link) feature(name string) (number, count int, err error) {
	const (
		ssFeatures = 4  // ETH_SS_FEATURES
		nameLength = 32 // ETH_GSTRING_LEN
	)
	var info struct { // struct ethtool_sset_info with one answer
		cmd, reserved uint32
		mask          uint64
		count         uint32
		_             uint32
	}
	info.cmd, info.mask = unix.ETHTOOL_GSSET_INFO, 1<<ssFeatures
	if _, err := l.ethtool(unsafe.Pointer(&info)); err != nil {
		return 0, 0, err
	}
	names := make([]uint32, 3+info.count*nameLength/4) // struct ethtool_gstrings
	names[0], names[1], names[2] = unix.ETHTOOL_GSTRINGS, ssFeatures, info.count
	if _, err := l.ethtool(unsafe.Pointer(&names[0])); err != nil {
		return 0, 0, err
	}
	text := unsafe.Slice((*byte)(unsafe.Pointer(&names[0])), len(names)*4)[12:]
	for i := range int(info.count) {
		if unix.ByteSliceToString(text[i*nameLength:(i+1)*nameLength]) == name {
			return i, int(info.count), nil
		}
	}
	return 0, 0, &missingError{fmt.Errorf("no such feature among %d", info.count)}
}

// ethtool makes an ethtool request (linux/ethtool.h) and returns what that
// does.
func (l *Link) ethtool(request unsafe.Pointer) (int, error) {
	ifr := struct { // struct ifreq
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [24 - unsafe.Sizeof(uintptr(0))]byte
	}{data: request}
	copy(ifr.name[:unix.IFNAMSIZ-1], l.name)
	did, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(l.ns.ctl), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&ifr)))
	if errno != 0 {
		return 0, os.NewSyscallError("ioctl SIOCETHTOOL", errno)
	}
	return int(did), nil
}

func (l *Link) wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("netns: %s %s: %w", what, l.name, err)
}
