// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

// Image writes the regular files and directories of a tree to standard output
// as a kernel's initial file system: a gzipped cpio archive
// (Documentation/driver-api/early-userspace/buffer-format.rst).
//
//	image directory
package main

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: image directory")
	}
	if err := write(os.Stdout, os.Args[1]); err != nil {
		log.Fatal("image: ", err)
	}
}

func write(w io.Writer, tree string) error {
	out := bufio.NewWriter(w)
	packed, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return err
	}
	a := &archive{w: packed}
	err = filepath.WalkDir(tree, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == tree {
			return err
		}
		name, err := filepath.Rel(tree, path)
		if err != nil {
			return err
		}
		switch {
		case entry.IsDir():
			return a.add(name, 0o040755, nil)
		case entry.Type().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return a.add(name, 0o100755, data)
		}
		return fmt.Errorf("%s is neither a file nor a directory", path)
	})
	if err != nil {
		return err
	}
	if err := a.add("TRAILER!!!", 0, nil); err != nil {
		return err
	}
	if err := packed.Close(); err != nil {
		return err
	}
	return out.Flush()
}

// An archive is written in cpio's format newc.
type archive struct {
	w      io.Writer
	inodes int
}

func (a *archive) add(name string, mode int, data []byte) error {
	a.inodes++
	// Inode, mode, uid, gid, links, mtime, size, device (2), special device (2),
	// length of the name, check
	fields := []int{a.inodes, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0}
	entry := []byte("070701")
	for _, field := range fields {
		entry = fmt.Appendf(entry, "%08x", field)
	}
	entry = pad(append(append(entry, name...), 0))
	if _, err := a.w.Write(append(entry, pad(data)...)); err != nil {
		return err
	}
	return nil
}

// pad fills up to a multiple of four bytes.
func pad(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}
