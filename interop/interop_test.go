// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package interop

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/batchconn/batchconn"
)

// A kind is a way to make the connection that a library gets of a socket.
// onError hears of datagrams that failed after their write had returned.
type kind struct {
	name string
	wrap func(t testing.TB, c *net.UDPConn, onError func(netip.AddrPort, error)) net.PacketConn
}

// kinds are what every test runs on; the first is what the others are compared
// with.
var kinds = []kind{
	{"bare", func(_ testing.TB, c *net.UDPConn, _ func(netip.AddrPort, error)) net.PacketConn { return c }},
	{"conn", func(t testing.TB, c *net.UDPConn, _ func(netip.AddrPort, error)) net.PacketConn {
		return newConn(t, c, nil)
	}},
	{"writer", func(t testing.TB, c *net.UDPConn, onError func(netip.AddrPort, error)) net.PacketConn {
		return batchconn.NewWriter(newConn(t, c, nil), &batchconn.WriterConfig{OnError: onError})
	}},
}

func newConn(t testing.TB, c *net.UDPConn, cfg *batchconn.Config) *batchconn.Conn {
	t.Helper()
	conn, err := batchconn.New(c, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// onEach runs f on each kind of connection on a network, and again by turns as
// often as -rounds says. What f returns is the cost of the work without its
// set-up, which the table at the end compares, if it is any.
func onEach(t *testing.T, n network, kinds []kind, f func(t *testing.T, s site) cost) {
	t.Helper()
	if *rounds > 1 { // what this first round costs is told apart: counting takes time
		counting = true
		onEachOnce(t, n, kinds, f)
		counting = false
	}
	for i := range *rounds { // each comes first in turn: what runs later may have it easier
		first := i % len(kinds)
		onEachOnce(t, n, append(kinds[first:len(kinds):len(kinds)], kinds[:first]...), f)
	}
}

func onEachOnce(t *testing.T, n network, kinds []kind, f func(t *testing.T, s site) cost) {
	t.Helper()
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			noLeaks(t)
			if c := f(t, site{n, k}); c != (cost{}) && !t.Failed() {
				results.add(t, k.name, c)
			}
		})
	}
}

var rounds = flag.Int("rounds", 1, "how often each comparison is run, with all the data if more than once")

func TestMain(m *testing.M) {
	flag.Parse()
	// What the runtime and package net open on first use is no leak.
	if c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err == nil {
		c.Close()
	}
	code := m.Run()
	if testing.Verbose() {
		results.print(os.Stdout)
	}
	os.Exit(code)
}

// patience is what a test waits for what ought to come at once. It bounds a
// hang; no test depends on how long anything takes.
const patience = time.Minute

func withPatience(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// noLeaks checks, after all other clean-up, that the test left no goroutine and
// no descriptor.
func noLeaks(t *testing.T) {
	t.Helper()
	old, descriptors := goleak.IgnoreCurrent(), openDescriptors()
	t.Cleanup(func() {
		for end := time.Now().Add(patience / 6); ; time.Sleep(time.Millisecond) {
			leaked, d := goleak.Find(old, kcpWorkers), openDescriptors()
			if leaked == nil && d <= descriptors {
				return
			}
			if time.Now().After(end) {
				t.Errorf("%d descriptors, had %d; goroutines: %v", d, descriptors, leaked)
				return
			}
		}
	})
}

// kcpWorkers are the process's, started with the first session.
var kcpWorkers = goleak.IgnoreAnyFunction("github.com/xtaci/kcp-go/v5.postProcessWorker")

// openDescriptors is how many descriptors the process has, or 0 where the
// system does not say.
func openDescriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}

// scaled is how much of n is done: all of it where it is measured, and else
// what there is time for. The race detector makes all of this ten times slower.
func scaled(n int) int {
	switch {
	case *rounds > 1:
		return n
	case raceEnabled || testing.Short():
		return max(n/16, 1)
	}
	return max(n/4, 1)
}

// noise is n bytes that do not compress and are the same in every run with the
// same seed.
func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	mathrand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// readAll checks that a reader has what is wanted, and no more.
func readAll(r io.Reader, want []byte) error {
	c := comparer{want: want}
	if _, err := io.Copy(&c, r); err != nil {
		return fmt.Errorf("after %d bytes: %w", c.got, err)
	}
	if c.got < len(want) {
		return fmt.Errorf("%d bytes came, want %d", c.got, len(want))
	}
	return nil
}

// A comparer compares what is written to it with what is wanted. It looks at
// each byte, but hashes none: that took a third of what a transfer costs.
type comparer struct {
	want []byte
	got  int
}

func (c *comparer) Write(p []byte) (int, error) {
	if want := c.want[c.got:]; len(p) > len(want) || !bytes.Equal(p, want[:len(p)]) {
		return 0, errors.New("other bytes came than were sent")
	}
	c.got += len(p)
	return len(p), nil
}

// identity is a certificate for "localhost" and a pool that trusts it.
var identity = sync.OnceValues(func() (tls.Certificate, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "localhost"},
		DNSNames:              []string{"localhost"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool
})
