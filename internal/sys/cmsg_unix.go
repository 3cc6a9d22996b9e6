// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build unix

package sys

import "golang.org/x/sys/unix"

// cmsgWord is the size of cmsg_len: a size_t on Linux, a socklen_t elsewhere.
// After it come two ints.
const cmsgWord = unix.SizeofCmsghdr - 8

// cmsgLen is CMSG_LEN: the length of a message with n bytes of data.
func cmsgLen(n int) int { return unix.CmsgLen(n) }

// cmsgSpace is CMSG_SPACE: that and the padding up to the next message.
func cmsgSpace(n int) int { return unix.CmsgSpace(n) }
