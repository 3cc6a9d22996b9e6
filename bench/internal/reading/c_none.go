// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux && !cgo

package reading

// InC are loops in C, of which there are none here.
func InC() (ways []Way, missing []string) {
	return nil, []string{"C and GLib: built without cgo (no C compiler, or CGO_ENABLED=0)"}
}
