// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package sys

import (
	"net"
	"strconv"
	"sync"
	"time"
)

// zones remembers the names of interfaces, as package net does: asking the
// system for one takes longer than receiving many datagrams.
var zones struct {
	sync.Mutex
	names   map[uint32]string
	expires time.Time
}

// zonesExpiry is package net's (ipv6ZoneCache).
const zonesExpiry = time.Minute

// ZoneName is the name of the interface of an index, or the index itself if
// there is none, as in package net.
func ZoneName(index uint32) string {
	zones.Lock()
	defer zones.Unlock()
	if now := time.Now(); now.After(zones.expires) {
		zones.names, zones.expires = make(map[uint32]string), now.Add(zonesExpiry)
	}
	name, ok := zones.names[index]
	if !ok {
		name = strconv.FormatUint(uint64(index), 10)
		if ifi, err := net.InterfaceByIndex(int(index)); err == nil {
			name = ifi.Name
		}
		zones.names[index] = name
	}
	return name
}
