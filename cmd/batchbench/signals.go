// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// A signalError is why a context is done.
type signalError struct{ os.Signal }

func (e signalError) Error() string { return e.String() }

// withSignals returns a context that Ctrl-C, the end of a service or that of
// the terminal cancels. stop gives the signals back their effect.
func withSignals(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) { // as nohup(1) does
			signal.Notify(signals, s)
		}
	}
	go func() {
		select {
		case s := <-signals:
			cancel(signalError{s})
		case <-ctx.Done():
		}
	}()
	return ctx, func() { signal.Stop(signals); cancel(nil) }
}

// interruptedBy is the exit code for what ended ctx.
func interruptedBy(ctx context.Context) int {
	s, ok := context.Cause(ctx).(signalError)
	if !ok {
		return exitInterrupted
	}
	switch s.Signal {
	case syscall.SIGTERM:
		return 128 + 15
	case syscall.SIGHUP:
		return 128 + 1
	}
	return exitInterrupted
}
