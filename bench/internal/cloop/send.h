// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

#pragma once

#include <netinet/in.h>

// A job is count datagrams of size bytes, burst in a row to each of the
// destinations in turn, sent over and over for about ns nanoseconds. batches are
// sent between looks at the clock.
struct job {
	int fd, count, size, burst, batches;
	const struct sockaddr_in *to;
	int destinations;
	char *payload; // of count * size bytes
	long ns;
};

// What was done. what is empty unless there is more to say about a failure than
// its errno.
struct done {
	long datagrams;
	char what[128];
};

// Each returns 0 or an errno, and keeps what it needs to itself, so that any
// number of threads may send at once.
int send_sendto(const struct job *j, struct done *d);
int send_sendmmsg(const struct job *j, struct done *d);
int send_segmented(const struct job *j, struct done *d);
int send_segmented_vectors(const struct job *j, struct done *d); // an iovec for each datagram
int send_glib(const struct job *j, struct done *d);

const char *glib_missing(void); // why GLib cannot be called, or NULL
void glib_version(unsigned version[3]);

long job_begin(void);
int job_running(const struct job *j, long begin);
const struct sockaddr_in *job_destination(const struct job *j, int datagram);
