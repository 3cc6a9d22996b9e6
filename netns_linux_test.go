// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A network of the test's own.
//
// inNamespace runs a test again in a process of its own, in a new network
// namespace, whose only interface is a loopback that the test may narrow: with
// a tap a socket fills up, as it never does on the machine's loopback. It takes
// no privilege and no program besides the test itself.

// A tap is a token bucket (tc-tbf(8)) through which all of the loopback goes.
type tap struct {
	rate  uint32 // bytes a second
	burst uint32 // bytes that pass at once after a pause
	limit uint32 // bytes that wait at most; what comes on top is dropped
}

var (
	shut    = tap{rate: 1, burst: 2 << 10, limit: 1 << 20}       // the burst, and then nothing for minutes
	trickle = tap{rate: 125_000, burst: 2 << 10, limit: 1 << 20} // 1 Mbit/s
	open    = tap{rate: 1 << 30, burst: 4 << 20, limit: 1 << 20}
)

// A loopback is the lo of the test's own namespace: up, with MTU 1500, with
// 127.0.0.1 and, where the system has IPv6, ::1.
type loopback struct {
	t     *testing.T
	nl    int // a NETLINK_ROUTE socket
	seq   uint32
	index int32
	nudge *net.UDPConn // connected to itself
}

// setTap puts the tap before all that leaves from now on, and in place of an
// earlier one: what waits there stays and goes on at the new rate.
func (lo *loopback) setTap(tp tap) {
	lo.t.Helper()
	lo.must("set the tap", lo.request(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, tp.message(lo.index)))
	// The queue looks at its new rate when its timer fires, by the old rate,
	// or when a packet comes.
	if _, err := lo.nudge.Write(nil); err != nil {
		lo.t.Fatalf("nudge the tap: %v", err)
	}
}

// removeTap drops what waits at the tap.
func (lo *loopback) removeTap() {
	lo.t.Helper()
	lo.must("remove the tap", lo.request(unix.RTM_DELQDISC, 0, trafficMessage(lo.index)))
}

// setMTU sets the MTU and brings lo up.
func (lo *loopback) setMTU(mtu int) {
	lo.t.Helper()
	m := []byte{unix.AF_UNSPEC, 0, 0, 0} // struct ifinfomsg
	m = appendUint32(m, uint32(lo.index), unix.IFF_UP, unix.IFF_UP)
	m = append(m, attribute(unix.IFLA_MTU, appendUint32(nil, uint32(mtu)))...)
	lo.must("set up lo", lo.request(unix.RTM_NEWLINK, 0, m))
}

// oneProcessor keeps this process, and with it the loopback's queues, to one
// processor: the kernel may reorder what passes the tap on several.
func (lo *loopback) oneProcessor() {
	lo.t.Helper()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		lo.t.Fatal(err)
	}
	for cpu := range 1024 {
		if all.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		lo.t.Fatal(err)
	}
	for _, thread := range threads {
		if tid, err := strconv.Atoi(thread.Name()); err == nil {
			unix.SchedSetaffinity(tid, &one) // one that has ended needs none
		}
	}
}

func (lo *loopback) must(what string, err error) {
	lo.t.Helper()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		lo.t.Skipf("the system forbids network namespaces: %s: %v", what, err)
	}
	if err != nil {
		lo.t.Fatalf("%s: %v", what, err)
	}
}

// namespaceEnv tells the process which test it was started for.
const namespaceEnv = "BATCHCONN_TEST_NAMESPACE"

// inNamespace runs f with a network of its own and as the only test of its
// process. It is called first thing in a top-level test, which skips where the
// system forbids namespaces, and only there.
func inNamespace(t *testing.T, f func(t *testing.T, lo *loopback)) {
	t.Helper()
	if strings.Contains(t.Name(), "/") {
		t.Fatal("inNamespace in a subtest")
	}
	if os.Getenv(namespaceEnv) == t.Name() {
		f(t, newLoopback(t))
		return
	}
	out, err := runInNamespace(t)
	text := relayed(out)
	switch {
	case err != nil:
		t.Fatalf("in a namespace: %v\n%s", err, text)
	case strings.Contains(out, "--- SKIP: "+t.Name()+" "):
		t.Skip(text)
	case !strings.Contains(out, "--- PASS: "+t.Name()+" "):
		t.Fatalf("in a namespace: the test did not run\n%s", text)
	}
	if text != "" {
		t.Log(text)
	}
}

// runInNamespace runs this test, and of its subtests those asked for, in new
// user and network namespaces, and returns what it printed.
func runInNamespace(t *testing.T) (string, error) {
	run := "^" + t.Name() + "$"
	if _, sub, ok := strings.Cut(flag.Lookup("test.run").Value.String(), "/"); ok {
		run += "/" + sub
	}
	args := []string{"-test.run=" + run, "-test.v=true", "-test.count=1", fmt.Sprintf("-test.short=%v", testing.Short()), "-soak=" + soakFor.String()}
	if end, ok := t.Deadline(); ok { // early enough for its stacks to be seen
		args = append(args, "-test.timeout="+(time.Until(end)*9/10).String())
	}
	// Who has no user namespaces but is root can do without.
	flags := []uintptr{syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET, syscall.CLONE_NEWNET}
	var forbidden error
	for _, flags := range flags {
		cmd := exec.Command("/proc/self/exe", args...)
		cmd.Env = append(os.Environ(), namespaceEnv+"="+t.Name(), fmt.Sprintf("GOMAXPROCS=%d", runtime.GOMAXPROCS(0)),
			"GORACE=atexit_sleep_ms=50 "+os.Getenv("GORACE")) // the detector ends with a sleep of a second
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
		if flags&syscall.CLONE_NEWUSER != 0 {
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
		}
		out, err := cmd.CombinedOutput()
		if cmd.Process != nil || !isForbidden(err) {
			return string(out), err
		}
		forbidden = errors.Join(forbidden, err)
	}
	t.Skipf("the system forbids network namespaces: %v", forbidden)
	return "", nil
}

// isForbidden tells how clone(2) and the writing of the ID maps fail where
// namespaces are not to be had, user_namespaces(7).
func isForbidden(err error) bool {
	for _, errno := range []syscall.Errno{unix.EPERM, unix.EACCES, unix.ENOSPC, unix.EUSERS, unix.EINVAL, unix.ENOSYS} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// relayed is what a test printed, without what would look like a result of the
// test that relays it.
func relayed(out string) string {
	var text strings.Builder
	for line := range strings.Lines(out) {
		bare := strings.TrimLeft(line, " ")
		if strings.HasPrefix(bare, "=== ") || strings.HasPrefix(bare, "--- PASS") || bare == "PASS\n" {
			continue
		}
		text.WriteString(line[:len(line)-len(bare)] + strings.TrimPrefix(bare, "--- "))
	}
	return strings.TrimSpace(text.String())
}

func newLoopback(t *testing.T) *loopback {
	t.Helper()
	nl, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatalf("netlink: %v", err)
	}
	t.Cleanup(func() { unix.Close(nl) })
	ifi, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	lo := &loopback{t: t, nl: nl, index: int32(ifi.Index)}
	lo.setMTU(1500) // the kernel adds 127.0.0.1 and ::1 as lo comes up
	lo.nudge = toItself(t)
	return lo
}

// toItself is a socket connected to its own address.
func toItself(t *testing.T) *net.UDPConn {
	t.Helper()
	spare, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	addr := spare.LocalAddr().(*net.UDPAddr)
	spare.Close()
	c, err := net.DialUDP("udp4", addr, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// request sends one rtnetlink(7) request and waits for its answer.
func (lo *loopback) request(kind, flags uint16, body []byte) error {
	lo.seq++
	m := appendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	m = binary.NativeEndian.AppendUint16(m, kind)
	m = binary.NativeEndian.AppendUint16(m, flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	m = appendUint32(m, lo.seq, 0)
	m = append(m, body...)
	if err := unix.Sendto(lo.nl, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	answer := make([]byte, 4<<10)
	for {
		n, _, err := unix.Recvfrom(lo.nl, answer, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		if n < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR {
			return errors.New("netlink: unexpected answer")
		}
		if binary.NativeEndian.Uint32(answer[8:]) != lo.seq {
			continue
		}
		if errno := -int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:])); errno != 0 {
			return os.NewSyscallError("netlink", syscall.Errno(errno))
		}
		return nil
	}
}

// trafficMessage is a struct tcmsg: handle 1: at the root.
func trafficMessage(index int32) []byte {
	const handle, root = 0x10000, 0xffffffff // TC_H_ROOT
	return appendUint32([]byte{unix.AF_UNSPEC, 0, 0, 0}, uint32(index), handle, root, 0)
}

// message is what sets the tap (linux/pkt_sched.h).
func (tp tap) message(index int32) []byte {
	const (
		parms, burst = 1, 6 // TCA_TBF_PARMS, TCA_TBF_BURST
		ethernet     = 1    // TC_LINKLAYER_ETHERNET: no rate table wanted
	)
	qopt := []byte{0, ethernet, 0, 0, 0, 0, 0, 0} // struct tc_tbf_qopt; begins with a tc_ratespec
	qopt = appendUint32(qopt, tp.rate)
	qopt = appendUint32(qopt, 0, 0, 0)        // no peak rate
	qopt = appendUint32(qopt, tp.limit, 0, 0) // the burst is told in bytes below
	options := attribute(parms, qopt)
	options = append(options, attribute(burst, appendUint32(nil, tp.burst))...)
	m := trafficMessage(index)
	m = append(m, attribute(unix.TCA_KIND, []byte("tbf\x00"))...)
	return append(m, attribute(unix.TCA_OPTIONS, options)...)
}

// attribute is a struct rtattr around data, all of whose lengths here are
// multiples of 4.
func attribute(kind uint16, data []byte) []byte {
	a := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(data)))
	a = binary.NativeEndian.AppendUint16(a, kind)
	return append(a, data...)
}

func appendUint32(b []byte, values ...uint32) []byte {
	for _, v := range values {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	return b
}

func TestNamespace(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		ifis, err := net.Interfaces()
		if err != nil || len(ifis) != 1 || ifis[0].MTU != 1500 || ifis[0].Flags&net.FlagUp == 0 {
			t.Fatalf("interfaces: %+v, %v; want lo alone, up, MTU 1500", ifis, err)
		}
		if _, err := os.Stat("/proc/sys/net/ipv6"); err == nil {
			c, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6loopback})
			if err != nil {
				t.Fatalf("::1: %v", err)
			}
			c.Close()
		}
		lo.setMTU(9000)
		if ifi, err := net.InterfaceByName("lo"); err != nil || ifi.MTU != 9000 {
			t.Errorf("lo: %+v, %v; want MTU 9000", ifi, err)
		}
		lo.setTap(shut)
		lo.setTap(open)
		lo.removeTap()
	})
}
