// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package wgbind

import (
	"errors"

	"golang.org/x/sys/unix"
)

// SetMark sets SO_MARK, socket(7).
func (b *Bind) SetMark(mark uint32) error {
	c := b.open.Load()
	if c == nil {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var errno error
	err = raw.Control(func(fd uintptr) { errno = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark)) })
	return errors.Join(err, errno)
}
