// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/batchconn/batchconn/internal/sys"
)

func TestErrWouldBlock(t *testing.T) {
	if !errors.Is(ErrWouldBlock, sys.EWOULDBLOCK) || !errors.Is(fmt.Errorf("x: %w", ErrWouldBlock), ErrWouldBlock) {
		t.Error("ErrWouldBlock is not what it should be")
	}
	if errors.Is(ErrWouldBlock, syscall.EINVAL) {
		t.Error("ErrWouldBlock is EINVAL")
	}
	for _, err := range []error{ErrWouldBlock, &net.OpError{Op: "write", Err: ErrWouldBlock}} {
		e := err.(interface {
			Timeout() bool
			Temporary() bool
		})
		if e.Timeout() || !e.Temporary() {
			t.Errorf("%v: Timeout %v, Temporary %v", err, e.Timeout(), e.Temporary())
		}
	}
}

func TestBatchError(t *testing.T) {
	to := netip.MustParseAddrPort("127.0.0.1:9")
	e := &BatchError{Err: &net.OpError{Op: "write", Err: context.Canceled}}
	for i, err := range []error{syscall.EPERM, net.ErrWriteToConnected, &net.AddrError{Err: "bad", Addr: "x"}, syscall.EMSGSIZE} {
		e.Failed = append(e.Failed, MessageError{Index: 10 + i, Addr: to, Err: &net.OpError{Op: "write", Err: err}})
	}
	var err error = fmt.Errorf("wrapped: %w", e)
	for _, want := range []error{syscall.EPERM, net.ErrWriteToConnected, syscall.EMSGSIZE, context.Canceled} {
		if !errors.Is(err, want) {
			t.Errorf("is not %v", want)
		}
	}
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, ErrWouldBlock) {
		t.Error("is what it does not hold")
	}
	var batchErr *BatchError
	var msgErr *MessageError
	var addrErr *net.AddrError
	if !errors.As(err, &batchErr) || batchErr != e {
		t.Error("As *BatchError")
	}
	if !errors.As(err, &msgErr) || msgErr.Index != 10 || msgErr.Addr != to || !errors.Is(msgErr, syscall.EPERM) {
		t.Errorf("As *MessageError: %+v", msgErr)
	}
	if !errors.As(err, &addrErr) {
		t.Error("As *net.AddrError")
	}
	text := e.Error()
	for _, says := range []string{"4 messages failed", "message 10: ", "message 12: ", "context canceled", "; ..."} {
		if !strings.Contains(text, says) {
			t.Errorf("%q does not say %q", text, says)
		}
	}
	if strings.Contains(text, "message 13") {
		t.Errorf("%q names more than %d", text, errorsShown)
	}
	if e.Err = nil; len(e.Unwrap()) != 4 || strings.Contains(e.Error(), "ended by") {
		t.Errorf("not ended early: %v, %q", e.Unwrap(), e)
	}
}
