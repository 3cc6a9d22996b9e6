// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package netns

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
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

func TestRun(t *testing.T) {
	Run(t, func(t *testing.T, ns *Namespace) {
		ifis, err := net.Interfaces()
		if err != nil || len(ifis) != 1 || ifis[0].MTU != 1500 || ifis[0].Flags&net.FlagUp == 0 {
			t.Fatalf("interfaces: %+v, %v; want lo alone, up, MTU 1500", ifis, err)
		}
		if hasIPv6() {
			c, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6loopback})
			if err != nil {
				t.Fatalf("::1: %v", err)
			}
			c.Close()
		}
		Check(t, ns.Loopback().SetMTU(9000))
		if ifi, err := net.InterfaceByName("lo"); err != nil || ifi.MTU != 9000 {
			t.Errorf("lo: %+v, %v; want MTU 9000", ifi, err)
		}
	})
}

// TestBucket: a shut one lets its burst through and holds the rest; what waits
// there goes on as soon as another one is open, and is gone with it.
func TestBucket(t *testing.T) {
	Run(t, func(t *testing.T, ns *Namespace) {
		shut, lo := Bucket{Rate: 1, Burst: 2 << 10, Limit: 1 << 20}, ns.Loopback()
		Check(t, lo.SetBucket(shut))
		rx, tx := wiredPair(t, &End{Namespace: ns, IPv4: netip.MustParseAddr("127.0.0.1")}, &End{Namespace: ns}, "udp4")
		writeMany(t, tx, 10, 1000)
		if n := len(readAll(t, rx, 10, 50*time.Millisecond)); n != 1 {
			t.Fatalf("%d datagrams of 1000 bytes passed a burst of 2048", n)
		}
		Check(t, lo.SetBucket(Bucket{Rate: 1 << 30, Burst: 1 << 20, Limit: 1 << 20}))
		if n := len(readAll(t, rx, 9, patience)); n != 9 {
			t.Fatalf("%d datagrams of 9 passed once it was open", n)
		}
		Check(t, lo.SetBucket(shut))
		writeMany(t, tx, 10, 1000)
		readAll(t, rx, 1, patience)
		Check(t, lo.RemoveBucket())
		writeMany(t, tx, 1, 1)
		if got := readAll(t, rx, 1, patience); len(got) != 1 || got[0].n != 1 {
			t.Errorf("behind the bucket that is gone: %+v", got)
		}
	})
}

// TestErrors: they name what failed, and carry the kernel's number and words.
func TestErrors(t *testing.T) {
	Run(t, func(t *testing.T, ns *Namespace) {
		lo := ns.Loopback()
		for _, test := range []struct {
			err   error
			errno syscall.Errno
			words string
		}{
			{lo.SetMTU(-1), unix.EINVAL, "set MTU -1 of lo"},
			{lo.RemoveBucket(), unix.EINVAL, "take the token bucket from lo"},
			{lo.SetBucket(Bucket{Rate: 1}), unix.EINVAL, "put a token bucket before lo"},
			{func() error { _, err := ns.Link("eth7"); return err }(), unix.ENODEV, `"eth7"`},
			{ns.AddRoute(Route{Dst: netip.MustParsePrefix("192.0.2.0/24"), Via: netip.MustParseAddr("198.51.100.1"), Link: lo}),
				unix.ENETUNREACH, "Nexthop has invalid gateway"},
		} {
			if !errors.Is(test.err, test.errno) || !strings.Contains(test.err.Error(), test.words) || Unavailable(test.err) {
				t.Errorf("%v; want %v about %q", test.err, test.errno, test.words)
			}
		}
		if err := lo.SetFeature("tx-mind-reading", true); !Unavailable(err) || !strings.Contains(err.Error(), "tx-mind-reading") {
			t.Errorf("an unknown feature: %v", err)
		}
	})
}

// TestDo: what f opens is in the namespace, and the thread comes back whatever
// becomes of f.
func TestDo(t *testing.T) {
	Run(t, func(t *testing.T, ns *Namespace) {
		other, err := New()
		Check(t, err)
		defer other.Close()
		home := ownNetwork(t)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			defer func() {
				if ownNetwork(t) != home {
					t.Error("a goroutine that ended is still in the namespace")
				}
			}()
			other.Do(func() error {
				if ownNetwork(t) == home {
					t.Error("f is not in the namespace")
				}
				ns.Do(func() error {
					if ownNetwork(t) != home {
						t.Error("one within another is not in the first")
					}
					return nil
				})
				if ownNetwork(t) == home {
					t.Error("f is not in the namespace any more")
				}
				runtime.Goexit()
				return nil
			})
		}()
		<-ended
		if err := other.Do(func() error { return errors.ErrUnsupported }); err != errors.ErrUnsupported {
			t.Errorf("f's error: %v", err)
		}
		c, err := other.ListenUDP("udp4", netip.MustParseAddrPort("127.0.0.1:0"))
		Check(t, err)
		defer c.Close()
		same, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(c.LocalAddr().(*net.UDPAddr).AddrPort()))
		if err != nil {
			t.Fatalf("the port is taken here too: %v", err)
		}
		same.Close()
	})
}

// ownNetwork names the namespace of this thread.
func ownNetwork(t *testing.T) string {
	link, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Error(err)
	}
	return link
}

// TestRoutes: the MTU is the route's, and a mark leads to another one.
func TestRoutes(t *testing.T) {
	Run(t, func(t *testing.T, ns *Namespace) {
		w, err := ns.Wire(WireConfig{})
		Check(t, err)
		defer w.Close()
		link := w.Near.Link
		Check(t, link.AddAddr(netip.MustParsePrefix("192.0.2.1/24")))
		peer := netip.MustParsePrefix("192.0.2.2/32")
		Check(t, ns.AddRoute(Route{Dst: peer, Link: link, MTU: 1400}))
		Check(t, ns.AddRoute(Route{Dst: peer, Link: link, MTU: 1300, Table: 7}))
		Check(t, ns.AddRule(Rule{Mark: 42, Table: 7}))
		for mark, mtu := range map[int]int{0: 1400, 42: 1300} {
			c, err := ns.DialUDP("udp4", netip.AddrPortFrom(peer.Addr(), 9))
			Check(t, err)
			defer c.Close()
			setOption(t, c, unix.SOL_SOCKET, unix.SO_MARK, mark)
			setOption(t, c, unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
			if _, err := c.Write(make([]byte, mtu-28)); err != nil {
				t.Errorf("mark %d, MTU %d: %v", mark, mtu, err)
			}
			if _, err := c.Write(make([]byte, mtu-27)); !errors.Is(err, unix.EMSGSIZE) {
				t.Errorf("mark %d, a byte more than MTU %d: %v", mark, mtu, err)
			}
		}
	})
}

// TestUnprivileged: another user than root has loopbacks and wires too.
func TestUnprivileged(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("it is not root that runs these tests: all of them do this")
	}
	const nobody = 65534
	cmd := exec.Command("/proc/self/exe", "-test.run=^(TestRun|TestBucket|TestRoutes|TestWireSegmented)$", "-test.v")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Contains(string(out), "--- SKIP: TestRun ") {
		t.Skipf("another user may not: %s", Relayed(string(out)))
	}
	if passed := strings.Count(string(out), "\n--- PASS: "); passed != 4 {
		t.Errorf("%d of 4 passed\n%s", passed, out)
	}
}

// TestReexec: a program that runs itself again has a network of its own.
func TestReexec(t *testing.T) {
	Run(t, func(t *testing.T, ns *Namespace) { // what it prints is relayed
		if Inside() {
			t.Error("a test's network is not of a program's own")
		}
		if _, err := Enter(); err == nil {
			t.Error("the test's network is entered")
		}
		Check(t, ns.Loopback().SetMTU(2000))
		args := os.Args
		defer func() { os.Args = args }()
		os.Args = []string{reexecArg, "-test.run=^TestReexecInside$"}
		if code, err := Reexec(); code != 0 || err != nil {
			t.Errorf("exit code %d, %v", code, err)
		}
		t.Setenv(reexecCode, "7")
		if code, err := Reexec(); code != 7 || err != nil {
			t.Errorf("exit code %d, %v; want 7", code, err)
		}
	})
}

const (
	reexecArg  = "batchconn-reexec"
	reexecCode = "BATCHCONN_NETNS_TEST_CODE" // what to exit with
)

// TestReexecInside is what TestReexec runs.
func TestReexecInside(t *testing.T) {
	if os.Args[0] != reexecArg {
		t.Skip("run by TestReexec")
	}
	ns, err := Enter()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if ifi, err := net.InterfaceByName("lo"); err != nil || ifi.MTU != 1500 {
		t.Errorf("lo: %+v, %v", ifi, err)
	}
	if code, err := strconv.Atoi(os.Getenv(reexecCode)); err == nil && !t.Failed() {
		os.Exit(code)
	}
}

// patience is for what comes at once unless it does not come at all.
const patience = 20 * time.Second

// wiredPair is a receiver at one end and a socket connected to it at the other.
func wiredPair(t *testing.T, at, from *End, network string) (rx, tx *net.UDPConn) {
	t.Helper()
	rx, err := at.Listen(network)
	Check(t, err)
	t.Cleanup(func() { rx.Close() })
	rx.SetReadBuffer(4 << 20)
	setOption(t, rx, unix.SOL_UDP, unix.UDP_GRO, 1)
	tx, err = from.DialUDP(network, rx.LocalAddr().(*net.UDPAddr).AddrPort())
	Check(t, err)
	t.Cleanup(func() { tx.Close() })
	return rx, tx
}

func setOption(t *testing.T, c *net.UDPConn, level, option, value int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	controlErr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, value) })
	Check(t, errors.Join(controlErr, err))
}

// writeMany writes n datagrams, each full of its number.
func writeMany(t *testing.T, c *net.UDPConn, n, size int) {
	t.Helper()
	p := make([]byte, size)
	for i := range n {
		fill(p, i)
		if _, err := c.Write(p); err != nil {
			t.Fatal(err)
		}
	}
}

func fill(p []byte, number int) {
	for i := range p {
		p[i] = byte(number)
	}
}

// A read is what one recvmsg returned.
type read struct {
	n      int
	stride int // what UDP_GRO says; 0 if nothing
	data   []byte
}

// readAll reads until so many datagrams have come, or nothing for a while.
func readAll(t *testing.T, c *net.UDPConn, datagrams int, within time.Duration) (reads []read) {
	t.Helper()
	p, oob := make([]byte, 1<<16), make([]byte, 256)
	for datagrams > 0 {
		c.SetReadDeadline(time.Now().Add(within))
		n, oobn, flags, _, err := c.ReadMsgUDPAddrPort(p, oob)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil || flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
			t.Fatalf("read: flags %#x, %v", flags, err)
		}
		r := read{n: n, stride: stride(t, oob[:oobn]), data: append([]byte(nil), p[:n]...)}
		reads = append(reads, r)
		datagrams -= r.datagrams()
	}
	return reads
}

// datagrams is how many a read returned.
func (r read) datagrams() int {
	if r.stride == 0 || r.n == 0 {
		return 1
	}
	return (r.n + r.stride - 1) / r.stride
}

// stride is the length of datagrams that control messages tell.
func stride(t *testing.T, oob []byte) int {
	t.Helper()
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_UDP && m.Header.Type == unix.UDP_GRO {
			return int(binary.NativeEndian.Uint32(m.Data))
		}
	}
	return 0
}

// count checks that every datagram arrived once, in order and intact, and
// returns how many there were.
func count(t *testing.T, reads []read, size int) (n int) {
	t.Helper()
	for _, r := range reads {
		if r.stride != 0 && r.stride != size {
			t.Fatalf("datagram %d: stride %d, want %d", n, r.stride, size)
		}
		for data := r.data; len(data) > 0; data = data[size:] {
			if len(data) < size {
				t.Fatalf("datagram %d has %d bytes, want %d", n, len(data), size)
			}
			for _, b := range data[:size] {
				if b != byte(n) {
					t.Fatalf("in place of datagram %d is %d", byte(n), b)
				}
			}
			n++
		}
	}
	return n
}
