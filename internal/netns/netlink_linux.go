// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A netlink is a socket for rtnetlink(7) requests. It serves the namespace in
// which it was opened, whichever thread uses it.
type netlink struct {
	mu  sync.Mutex
	fd  int
	seq uint32
}

func openNetlink() (*netlink, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	// What these do is put the kernel's own words into errors, and leave out
	// the request. An old kernel does without.
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	// The answer is there when the request returns: this only ends a mistake.
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10})
	return &netlink{fd: fd}, nil
}

func (nl *netlink) close() { unix.Close(nl.fd) }

// request makes one request and waits for its answer.
func (nl *netlink) request(kind, flags uint16, body []byte) error {
	_, err := nl.exchange(kind, flags|unix.NLM_F_ACK, body)
	return err
}

// exchange makes one request and returns what its answer has after its header.
func (nl *netlink) exchange(kind, flags uint16, body []byte) ([]byte, error) {
	nl.mu.Lock()
	defer nl.mu.Unlock()
	nl.seq++
	m := appendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	m = appendUint16(m, kind, flags|unix.NLM_F_REQUEST)
	m = append(appendUint32(m, nl.seq, 0), body...)
	if err := unix.Sendto(nl.fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("sendto", err)
	}
	answer := make([]byte, 32<<10)
	for {
		n, _, err := unix.Recvfrom(nl.fd, answer, 0)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, os.NewSyscallError("recvfrom", err)
		case n < unix.SizeofNlMsghdr+4:
			return nil, fmt.Errorf("netlink: unexpected answer % x", answer[:n])
		case binary.NativeEndian.Uint32(answer[8:]) != nl.seq: // an older one's, which was waited for in vain
		case binary.NativeEndian.Uint16(answer[4:]) == unix.NLMSG_ERROR:
			return nil, answerError(answer[:n])
		default:
			return answer[unix.SizeofNlMsghdr:n], nil
		}
	}
}

// answerError reads a struct nlmsgerr and what extends it.
func answerError(answer []byte) error {
	const nlmsgerrAttrMsg = 1
	flags, body := binary.NativeEndian.Uint16(answer[6:]), answer[unix.SizeofNlMsghdr:]
	errno := syscall.Errno(-int32(binary.NativeEndian.Uint32(body)))
	if errno == 0 {
		return nil
	}
	if flags&unix.NLM_F_ACK_TLVS == 0 || len(body) < 4+unix.SizeofNlMsghdr {
		return os.NewSyscallError("netlink", errno)
	}
	skip := 4 + unix.SizeofNlMsghdr
	if flags&unix.NLM_F_CAPPED == 0 { // the request follows its header
		skip = min(len(body), 4+aligned(int(binary.NativeEndian.Uint32(body[4:]))))
	}
	if words := findAttribute(body[skip:], nlmsgerrAttrMsg); words != nil {
		return fmt.Errorf("netlink: %w (%s)", errno, unix.ByteSliceToString(words))
	}
	return os.NewSyscallError("netlink", errno)
}

// findAttribute is the data of the first attribute of a kind, or nil.
func findAttribute(attrs []byte, kind uint16) []byte {
	for len(attrs) >= unix.SizeofRtAttr {
		length := int(binary.NativeEndian.Uint16(attrs))
		if length < unix.SizeofRtAttr || length > len(attrs) {
			break
		}
		if binary.NativeEndian.Uint16(attrs[2:]) == kind {
			return attrs[unix.SizeofRtAttr:length]
		}
		attrs = attrs[min(aligned(length), len(attrs)):]
	}
	return nil
}

// ifErrno is err as a missingError if it is errno.
func ifErrno(err error, errno syscall.Errno) error {
	if errors.Is(err, errno) {
		return &missingError{err}
	}
	return err
}

// attribute is a struct rtattr around data, padded.
func attribute(kind uint16, data ...byte) []byte {
	a := appendUint16(nil, uint16(unix.SizeofRtAttr+len(data)), kind)
	a = append(a, data...)
	return append(a, make([]byte, aligned(len(a))-len(a))...)
}

func attributeString(kind uint16, s string) []byte { return attribute(kind, append([]byte(s), 0)...) }

func attributeUint32(kind uint16, v uint32) []byte {
	return attribute(kind, appendUint32(nil, v)...)
}

// aligned is NLMSG_ALIGN, which is RTA_ALIGN.
func aligned(n int) int { return (n + 3) &^ 3 }

func appendUint16(b []byte, values ...uint16) []byte {
	for _, v := range values {
		b = binary.NativeEndian.AppendUint16(b, v)
	}
	return b
}

func appendUint32(b []byte, values ...uint32) []byte {
	for _, v := range values {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	return b
}
