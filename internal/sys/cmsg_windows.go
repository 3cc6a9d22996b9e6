// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package sys

import "math/bits"

// cmsgWord is the size of cmsg_len, a SIZE_T in WSACMSGHDR of ws2def.h. After
// it come two INTs. It is the alignment of headers and data too: that of the
// header is the SIZE_T's, and MAX_NATURAL_ALIGNMENT is the same.
const cmsgWord = bits.UintSize / 8

func cmsgAlign(n int) int { return (n + cmsgWord - 1) &^ (cmsgWord - 1) }

// cmsgLen is WSA_CMSG_LEN: the length of a message with n bytes of data.
func cmsgLen(n int) int { return cmsgAlign(cmsgWord+8) + n }

// cmsgSpace is WSA_CMSG_SPACE: that and the padding up to the next message.
func cmsgSpace(n int) int { return cmsgLen(0) + cmsgAlign(n) }
