// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build unix && !aix && !solaris

package sys

// MaxVectors is the maximum of iovecs in one message: IOV_MAX, UIO_MAXIOV.
const MaxVectors = 1024
