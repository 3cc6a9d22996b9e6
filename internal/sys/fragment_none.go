// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build dragonfly || netbsd || openbsd

package sys

import "errors"

// Over IPv4 there is no such option here.

func setDontFragment4(uintptr) error      { return errors.ErrUnsupported }
func setDontFragmentMapped(uintptr) error { return errors.ErrUnsupported }
