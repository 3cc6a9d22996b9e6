// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/net/ipv4"
)

// A fake is an adapter whose kernel does what it is told, where the real one
// cannot be made to. What it plays may be to ask the real one.
type fake struct {
	adapter // the real one
	play    func(call int, ms []ipv4.Message) (n int, err error)

	mu      sync.Mutex
	calls   int
	flags   []int
	taken   [][]byte // what went out
	maxCall int      // messages in one call
}

func (f *fake) writeBatch(ms []ipv4.Message, flags int) (int, error) {
	f.mu.Lock()
	f.calls++
	call := f.calls
	f.flags = append(f.flags, flags)
	f.maxCall = max(f.maxCall, len(ms))
	f.mu.Unlock()
	n, err := f.play(call, ms)
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range ms[:n] {
		p := bytes.Join(ms[i].Buffers, nil)
		f.taken = append(f.taken, p)
		ms[i].N, ms[i].NN = len(p), len(ms[i].OOB)
	}
	return n, err
}

// ask puts messages of a call to the real adapter.
func (f *fake) ask(call int, ms []ipv4.Message) (int, error) {
	f.mu.Lock()
	flags := f.flags[call-1]
	f.mu.Unlock()
	return f.adapter.writeBatch(ms, flags)
}

// sendto is a batch of one.
func (f *fake) sendto(p []byte, to netip.AddrPort, flags int) error {
	ms := []ipv4.Message{{Buffers: [][]byte{p}}}
	if to.IsValid() {
		ms[0].Addr = net.UDPAddrFromAddrPort(to)
	}
	n, err := f.writeBatch(ms, flags)
	if n == 1 {
		return nil
	}
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		return errno
	}
	return errors.ErrUnsupported
}

// follow makes c send through a fake.
func follow(c *Conn, play func(call int, ms []ipv4.Message) (int, error)) *fake {
	if c.send.noBatchCall.Swap(false) {
		c.send.kernel = portable{c.send.kernel, &c.send}
	}
	return replaceAdapter(&c.send.kernel, play)
}

// A portable is an adapter that goes the portable way.
type portable struct {
	adapter
	s *sender
}

func (p portable) writeBatch(ms []ipv4.Message, flags int) (int, error) {
	return p.s.writePortably(ms, flags)
}

// replaceAdapter puts a fake before an adapter.
func replaceAdapter(at *adapter, play func(call int, ms []ipv4.Message) (int, error)) *fake {
	f := &fake{adapter: *at, play: play}
	*at = f
	return f
}

// checkTaken makes sure that the first n messages went out, and BytesSent.
func (f *fake) checkTaken(t testing.TB, m *mail, n int) {
	t.Helper()
	if len(f.taken) != n {
		t.Fatalf("%d messages went out, want %d", len(f.taken), n)
	}
	for i, p := range f.taken {
		if !bytes.Equal(p, m.letters[i].p) {
			t.Fatalf("message %d is %s, want %s", i, brief(p), brief(m.letters[i].p))
		}
	}
	for i := range m.msgs {
		want := untouched
		if i < n {
			want = len(m.letters[i].p)
		}
		if got := m.msgs[i].BytesSent; got != want {
			t.Fatalf("message %d: BytesSent %d, want %d", i, got, want)
		}
	}
}

// scripted is a world whose Conn sends through a fake, without segmentation.
func scripted(t testing.TB, k kind, play func(call int, ms []ipv4.Message) (int, error)) (*world, *fake) {
	t.Helper()
	w := k.world(t, 1, &Config{GSO: GSOOff})
	return w, follow(w.conn, play)
}

// A kernel is a fake that takes everything, except while it is held: then
// the call that comes ends only once it is let go.
type kernel struct {
	*fake
	held    chan struct{} // closed by letGo
	entered chan struct{} // gets a token for each call that begins
}

// heldKernel makes a Writer whose first call to the kernel does not end. A nil
// cfg is one without segmentation.
func heldKernel(t testing.TB, cfg *Config, wcfg *WriterConfig) (*world, *Writer, *kernel) {
	t.Helper()
	if cfg == nil {
		cfg = &Config{GSO: GSOOff}
	}
	world := plainKind.world(t, 4, cfg)
	k := &kernel{held: make(chan struct{}), entered: make(chan struct{}, 1<<16)}
	k.fake = follow(world.conn, func(_ int, ms []ipv4.Message) (int, error) {
		k.entered <- struct{}{}
		<-k.held
		return len(ms), nil
	})
	w := NewWriter(world.conn, wcfg)
	t.Cleanup(func() {
		k.letGo()
		w.Close()
	})
	return world, w, k
}

func (k *kernel) letGo() {
	select {
	case <-k.held:
	default:
		close(k.held)
	}
}

// busy writes one datagram in another goroutine, which is then in the kernel
// with it until letGo.
func (k *kernel) busy(t testing.TB, w *Writer, to netip.AddrPort) {
	t.Helper()
	go w.WriteToUDPAddrPort(nil, to)
	receive(t, "a call to the kernel", k.entered)
}

// A fickleContext is done after its Err was asked some times, and has an error
// of its own.
type fickleContext struct {
	context.Context
	left atomic.Int64
	err  error
}

func (c *fickleContext) Err() error {
	if c.left.Add(-1) < 0 {
		return c.err
	}
	return nil
}

// A lateContext says that it is done before it can say why, as one does that
// closes Done before it stores the error.
type lateContext struct {
	context.Context
	done  chan struct{}
	looks atomic.Int32 // calls of Err that find nothing after Done
}

func (c *lateContext) Done() <-chan struct{} { return c.done }

func (c *lateContext) Err() error {
	select {
	case <-c.done:
		if c.looks.Add(-1) < 0 {
			return context.Canceled
		}
	default:
	}
	return nil
}
