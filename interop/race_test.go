// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build race

package interop

// raceEnabled says whether the race detector watches.
const raceEnabled = true
