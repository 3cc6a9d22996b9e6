// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build !linux

package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"
)

// These are so that callers compile. No Namespace can be had.
type (
	Namespace struct{}
	Link      struct{}
	Wire      struct{ Near, Far *End }
	End       struct {
		*Namespace
		Link       *Link
		IPv4, IPv6 netip.Addr
	}
)

var errUnsupported = fmt.Errorf("netns: %w on %s", errors.ErrUnsupported, runtime.GOOS)

func Run(t *testing.T, _ func(*testing.T, *Namespace)) { t.Helper(); Check(t, errUnsupported) }
func Inside() bool                                     { return false }
func Reexec() (int, error)                             { return 0, errUnsupported }
func Enter() (*Namespace, error)                       { return nil, errUnsupported }
func Current() (*Namespace, error)                     { return nil, errUnsupported }
func New() (*Namespace, error)                         { return nil, errUnsupported }
func OneProcessor() error                              { return errUnsupported }

func (*Namespace) Close() error                                           { return errUnsupported }
func (*Namespace) Do(func() error) error                                  { return errUnsupported }
func (*Namespace) ListenUDP(string, netip.AddrPort) (*net.UDPConn, error) { return nil, errUnsupported }
func (*Namespace) DialUDP(string, netip.AddrPort) (*net.UDPConn, error)   { return nil, errUnsupported }
func (*Namespace) AddRoute(Route) error                                   { return errUnsupported }
func (*Namespace) AddRule(Rule) error                                     { return errUnsupported }
func (*Namespace) Link(string) (*Link, error)                             { return nil, errUnsupported }
func (*Namespace) Loopback() *Link                                        { return nil }
func (*Namespace) Wire(WireConfig) (*Wire, error)                         { return nil, errUnsupported }

func (*Link) Name() string                        { return "" }
func (*Link) Index() int                          { return 0 }
func (*Link) Up() error                           { return errUnsupported }
func (*Link) Down() error                         { return errUnsupported }
func (*Link) Delete() error                       { return errUnsupported }
func (*Link) SetMTU(int) error                    { return errUnsupported }
func (*Link) AddAddr(netip.Prefix) error          { return errUnsupported }
func (*Link) SetBucket(Bucket) error              { return errUnsupported }
func (*Link) RemoveBucket() error                 { return errUnsupported }
func (*Link) SetFlushTimeout(time.Duration) error { return errUnsupported }
func (*Link) SetFeature(string, bool) error       { return errUnsupported }

func (*End) Addr(string) netip.Addr              { return netip.Addr{} }
func (*End) Listen(string) (*net.UDPConn, error) { return nil, errUnsupported }
func (*Wire) Close() error                       { return errUnsupported }
