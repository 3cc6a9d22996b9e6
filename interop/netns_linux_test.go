// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package interop

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// namespaceEnv tells a process that it was started for a test in a network
// namespace of its own.
const namespaceEnv = "BATCHCONN_INTEROP_NAMESPACE"

// inNamespace runs a top-level test again in a process with a network of its
// own, of which a loopback is all. It takes no privilege; it skips where the
// system forbids such.
func inNamespace(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if os.Getenv(namespaceEnv) == t.Name() {
		raiseLoopback(t)
		f(t)
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout="+(2*patience).String())
	cmd.Env = append(os.Environ(), namespaceEnv+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	text := strings.ReplaceAll(string(out), "--- ", "")
	switch {
	case cmd.Process == nil:
		t.Skipf("the system forbids network namespaces: %v", err)
	case err != nil:
		t.Fatalf("in a namespace: %v\n%s", err, text)
	case strings.Contains(string(out), "--- SKIP: "+t.Name()):
		t.Skip(text)
	case !strings.Contains(string(out), "--- PASS: "+t.Name()):
		t.Fatalf("in a namespace: the test did not run\n%s", text)
	}
	t.Log(text)
}

// raiseLoopback brings lo up; the kernel adds its addresses.
func raiseLoopback(t *testing.T) {
	t.Helper()
	m := []byte{unix.AF_UNSPEC, 0, 0, 0} // struct ifinfomsg
	m = appendUint32(m, loopbackIndex(t), unix.IFF_UP, unix.IFF_UP)
	request(t, unix.RTM_NEWLINK, 0, m)
}

// narrow puts a token bucket (tc-tbf(8)) of so many bytes a second before all
// that leaves through lo.
func narrow(t *testing.T, rate uint32) {
	t.Helper()
	const (
		handle, root = 0x10000, 0xffffffff // 1:, TC_H_ROOT
		parms, burst = 1, 6                // TCA_TBF_PARMS, TCA_TBF_BURST
		ethernet     = 1                   // TC_LINKLAYER_ETHERNET: no rate table wanted
	)
	qopt := appendUint32([]byte{0, ethernet, 0, 0, 0, 0, 0, 0}, rate) // struct tc_tbf_qopt
	qopt = appendUint32(qopt, 0, 0, 0, 1<<20, 0, 0)                   // no peak rate; a queue that no socket here can fill
	options := append(attribute(parms, qopt), attribute(burst, appendUint32(nil, 2<<10))...)
	m := appendUint32([]byte{unix.AF_UNSPEC, 0, 0, 0}, loopbackIndex(t), handle, root, 0) // struct tcmsg
	m = append(m, attribute(unix.TCA_KIND, []byte("tbf\x00"))...)
	request(t, unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, append(m, attribute(unix.TCA_OPTIONS, options)...))
}

// widen takes the token bucket away, with what waits at it.
func widen(t *testing.T) {
	t.Helper()
	request(t, unix.RTM_DELQDISC, 0, appendUint32([]byte{unix.AF_UNSPEC, 0, 0, 0}, loopbackIndex(t), 0x10000, 0xffffffff, 0))
}

func loopbackIndex(t *testing.T) uint32 {
	t.Helper()
	ifi, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	return uint32(ifi.Index)
}

// request makes one rtnetlink(7) request.
func request(t *testing.T, kind, flags uint16, body []byte) {
	t.Helper()
	err := requestError(kind, flags, body)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		t.Skipf("the system forbids network namespaces: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func requestError(kind, flags uint16, body []byte) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10})
	m := appendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	m = binary.NativeEndian.AppendUint16(m, kind)
	m = binary.NativeEndian.AppendUint16(m, flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	m = append(appendUint32(m, 1, 0), body...)
	if err := unix.Sendto(fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4<<10)
	for end := time.Now().Add(patience); time.Now().Before(end); {
		n, _, err := unix.Recvfrom(fd, answer, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR {
			return fmt.Errorf("netlink: unexpected answer %x", answer[:n])
		}
		if errno := -int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:])); errno != 0 {
			return syscall.Errno(errno)
		}
		return nil
	}
	return errors.New("netlink: no answer")
}

// attribute is a struct rtattr around data, all of whose lengths here are
// multiples of 4.
func attribute(kind uint16, data []byte) []byte {
	a := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(data)))
	return append(binary.NativeEndian.AppendUint16(a, kind), data...)
}

func appendUint32(b []byte, values ...uint32) []byte {
	for _, v := range values {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	return b
}
