// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package interop

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"flag"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
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

func (k kind) String() string { return k.name }

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

// open is a connection on a loopback port, closed with the test.
func (k kind) open(t testing.TB) net.PacketConn {
	t.Helper()
	return k.openReporting(t, nil)
}

// openReporting is open for a sender some of whose datagrams are to fail.
func (k kind) openReporting(t testing.TB, onError func(netip.AddrPort, error)) net.PacketConn {
	t.Helper()
	c := k.wrap(t, newSocket(t), onError)
	t.Cleanup(func() { c.Close() }) // all that is closed: it owns the socket
	return c
}

// socketBuffer is asked for on every socket, as every library here would. The
// windows of the tests do with what the kernel grants at least (net.core.rmem_max).
const socketBuffer = 4 << 20

func listen(t testing.TB) *net.UDPConn {
	t.Helper()
	c := newSocket(t)
	t.Cleanup(func() { c.Close() })
	return c
}

func newSocket(t testing.TB) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadBuffer(socketBuffer)
	c.SetWriteBuffer(socketBuffer)
	return c
}

// onEach runs f on each kind, and again by turns as often as -rounds says. What f
// returns is the cost of the work without its set-up, which the table at the end
// compares, if it is any.
func onEach[K interface{ String() string }](t *testing.T, kinds []K, f func(t *testing.T, k K) cost) {
	t.Helper()
	for range *rounds {
		for _, k := range kinds {
			t.Run(k.String(), func(t *testing.T) {
				noLeaks(t)
				if c := f(t, k); c != (cost{}) && !t.Failed() {
					results.add(t, k.String(), c)
				}
			})
		}
	}
}

var (
	rounds  = flag.Int("rounds", 1, "how often each comparison is run")
	results table
)

// A cost is what a piece of work took. CPU time is the one to compare where others
// use the machine too; it is of the whole process, both ends of the connection.
type cost struct{ wall, cpu time.Duration }

// A moment is when a piece of work began.
type moment struct {
	wall time.Time
	cpu  time.Duration
}

func begin() moment { return moment{time.Now(), cpuTime()} }

func (m moment) cost() cost { return cost{time.Since(m.wall), cpuTime() - m.cpu} }

func (c cost) add(d cost) cost { return cost{c.wall + d.wall, c.cpu + d.cpu} }

// A table is the costs of every test on every kind, in the order of their runs.
type table struct{ rows []*row }

type row struct {
	test  string
	kinds []string
	costs map[string][]cost
}

// add takes a cost of the test that has a sub-test for each kind.
func (r *table) add(t *testing.T, kind string, c cost) {
	test := t.Name()[:strings.LastIndexByte(t.Name(), '/')]
	i := slices.IndexFunc(r.rows, func(row *row) bool { return row.test == test })
	if i < 0 {
		i = len(r.rows)
		r.rows = append(r.rows, &row{test: test, costs: map[string][]cost{}})
	}
	row := r.rows[i]
	if !slices.Contains(row.kinds, kind) {
		row.kinds = append(row.kinds, kind)
	}
	row.costs[kind] = append(row.costs[kind], c)
	wall, cpu := row.ratios(kind)
	t.Logf("%v, %v CPU: %.2f and %.2f times as fast as %s", c.wall, c.cpu, wall[len(wall)-1], cpu[len(cpu)-1], row.kinds[0])
}

// ratios compare each run on a kind with the run on the first kind beside it;
// above 1 the kind is faster.
func (r *row) ratios(kind string) (wall, cpu []float64) {
	base := r.costs[r.kinds[0]]
	for i, c := range r.costs[kind][:min(len(base), len(r.costs[kind]))] {
		wall = append(wall, base[i].wall.Seconds()/c.wall.Seconds())
		cpu = append(cpu, base[i].cpu.Seconds()/c.cpu.Seconds())
	}
	return wall, cpu
}

// print shows for each test the median time on the first kind, and of the others
// the median ratio to it.
func (r *table) print() {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	defer w.Flush()
	fmt.Fprintf(w, "medians of %d\ttime\tCPU time\n", *rounds)
	for _, row := range r.rows {
		for i, k := range row.kinds {
			if i == 0 {
				c := row.costs[k]
				wall, cpu := make([]time.Duration, len(c)), make([]time.Duration, len(c))
				for i := range c {
					wall[i], cpu[i] = c[i].wall, c[i].cpu
				}
				fmt.Fprintf(w, "%s/%s\t%v\t%v\n", row.test, k, median(wall).Round(time.Millisecond), median(cpu).Round(time.Millisecond))
				continue
			}
			wall, cpu := row.ratios(k)
			fmt.Fprintf(w, "%s/%s\t%.2fx\t%.2fx\n", row.test, k, median(wall), median(cpu))
		}
	}
}

func median[T time.Duration | float64](v []T) T { return slices.Sorted(slices.Values(v))[len(v)/2] }

func TestMain(m *testing.M) {
	flag.Parse()
	// What the runtime and package net open on first use is no leak.
	if c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err == nil {
		c.Close()
	}
	code := m.Run()
	if testing.Verbose() && len(results.rows) > 0 {
		results.print()
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
		for end := time.Now().Add(patience / 2); ; time.Sleep(time.Millisecond) {
			leaked, d := goleak.Find(old), openDescriptors()
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

// openDescriptors is how many descriptors the process has, or 0 where the
// system does not say.
func openDescriptors() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}

// scaled is how much of n there is time for: the race detector makes all of this
// ten times slower.
func scaled(n int) int {
	if raceEnabled {
		return n / 8
	}
	return n
}

// noise is n bytes that do not compress and are the same in every run with the
// same seed.
func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	mathrand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

type digest = [sha256.Size]byte

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
