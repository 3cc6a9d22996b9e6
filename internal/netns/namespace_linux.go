// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// A Namespace is a network: the process's or one beside it.
type Namespace struct {
	file *os.File // network_namespaces(7)
	rt   *netlink
	ctl  int // a UDP socket, for ioctls and to send by
	lo   *Link
}

// Current is the network that the calling goroutine is in: outside of [Do]
// that of the process. What is done to it is seen by all that share it, so that
// programs call this inside of [Run] or [Reexec] only.
func Current() (*Namespace, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return current()
}

func current() (*Namespace, error) {
	file, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("netns: %w", err)
	}
	ns := &Namespace{file: file, ctl: -1}
	if ns.rt, err = openNetlink(); err != nil {
		ns.Close()
		return nil, fmt.Errorf("netns: open netlink: %w", err)
	}
	if ns.ctl, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		ns.Close()
		return nil, fmt.Errorf("netns: open a socket: %w", err)
	}
	if ns.lo, err = ns.Link("lo"); err != nil {
		ns.Close()
		return nil, err
	}
	return ns, nil
}

// New makes a network beside the current one. Its only link is a loopback, up,
// with MTU 1500. It ends once it is closed and the last of its sockets is.
func New() (*Namespace, error) {
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("netns: %w", err)
	}
	defer home.Close()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("netns: unshare the network: %w", err)
	}
	defer goHome(home)
	return enter()
}

// raiseLoopback makes lo one of the MTU that most networks have.
func (ns *Namespace) raiseLoopback() error {
	if err := ns.lo.SetMTU(1500); err != nil {
		return err
	}
	return ns.lo.Up()
}

// goHome returns the thread to a namespace, and lets other goroutines have it
// then.
func goHome(home *os.File) {
	if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
		runtime.UnlockOSThread()
	} // else it ends with its goroutine
}

// Do calls f in the namespace: sockets that it opens are there, and stay there.
// The goroutines that f starts are not in it. Several can be under way, one in
// another too, and f may end the goroutine, as by t.Fatal.
func (ns *Namespace) Do(f func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err == nil {
		defer home.Close()
		err = os.NewSyscallError("setns", unix.Setns(int(ns.file.Fd()), unix.CLONE_NEWNET))
	}
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("netns: enter a namespace: %w", err)
	}
	defer goHome(home)
	return f()
}

// ListenUDP is [net.ListenUDP] in the namespace.
func (ns *Namespace) ListenUDP(network string, addr netip.AddrPort) (c *net.UDPConn, err error) {
	err = ns.Do(func() error {
		c, err = net.ListenUDP(network, net.UDPAddrFromAddrPort(addr))
		return err
	})
	return c, err
}

// DialUDP is [net.DialUDP] in the namespace, from a port of the system's
// choice.
func (ns *Namespace) DialUDP(network string, to netip.AddrPort) (c *net.UDPConn, err error) {
	err = ns.Do(func() error {
		c, err = net.DialUDP(network, nil, net.UDPAddrFromAddrPort(to))
		return err
	})
	return c, err
}

// Close lets the namespace go.
func (ns *Namespace) Close() error {
	if ns.rt != nil {
		ns.rt.close()
	}
	if ns.ctl >= 0 {
		unix.Close(ns.ctl)
	}
	return ns.file.Close()
}

// AddRoute adds a route, in place of one to the same destination.
func (ns *Namespace) AddRoute(r Route) error {
	scope, table := byte(unix.RT_SCOPE_UNIVERSE), r.Table
	if !r.Via.IsValid() && r.Dst.Addr().Is4() {
		scope = unix.RT_SCOPE_LINK
	}
	if table == 0 {
		table = unix.RT_TABLE_MAIN
	}
	m := []byte{family(r.Dst.Addr()), byte(r.Dst.Bits()), 0, 0, byte(table), unix.RTPROT_STATIC, scope, unix.RTN_UNICAST, 0, 0, 0, 0} // struct rtmsg
	m = append(m, attribute(unix.RTA_DST, r.Dst.Masked().Addr().AsSlice()...)...)
	m = append(m, attributeUint32(unix.RTA_OIF, uint32(r.Link.index))...)
	if r.Via.IsValid() {
		m = append(m, attribute(unix.RTA_GATEWAY, r.Via.AsSlice()...)...)
	}
	if r.MTU != 0 {
		m = append(m, attribute(unix.RTA_METRICS, attributeUint32(unix.RTAX_MTU, uint32(r.MTU))...)...)
	}
	if err := ns.rt.request(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, m); err != nil {
		return fmt.Errorf("netns: add a route to %v by %s: %w", r.Dst, r.Link.name, err)
	}
	return nil
}

// AddRule adds a rule before all that the system has.
func (ns *Namespace) AddRule(r Rule) error {
	const (
		toTable                     = 1     // FR_ACT_TO_TBL
		fraPriority, fraMark        = 6, 10 // FRA_PRIORITY, FRA_FWMARK (linux/fib_rules.h)
		beforeOthers         uint32 = 1000
	)
	m := []byte{unix.AF_INET, 0, 0, 0, byte(r.Table), 0, 0, toTable, 0, 0, 0, 0} // struct fib_rule_hdr
	if r.IPv6 {
		m[0] = unix.AF_INET6
	}
	m = append(m, attributeUint32(fraPriority, beforeOthers)...)
	m = append(m, attributeUint32(fraMark, r.Mark)...)
	if err := ns.rt.request(unix.RTM_NEWRULE, unix.NLM_F_CREATE, m); err != nil {
		return fmt.Errorf("netns: add a rule for mark %d: %w", r.Mark, ifErrno(err, unix.EAFNOSUPPORT))
	}
	return nil
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// hasIPv6 tells whether the system has it: a namespace follows it.
func hasIPv6() bool {
	_, err := os.Stat("/proc/sys/net/ipv6")
	return !errors.Is(err, os.ErrNotExist)
}
