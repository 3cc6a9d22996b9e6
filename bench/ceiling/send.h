// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

#include <netinet/in.h>

// A job is count datagrams of size bytes, burst in a row to each of the
// destinations in turn, sent over and over for about ns nanoseconds.
struct job {
	int fd, count, size, burst;
	const struct sockaddr_in *to;
	int destinations;
	char *payload; // of count * size bytes
	long ns;
};

// What was done: times are of this thread.
struct done {
	long datagrams, wall_ns, cpu_ns;
};

// Each returns 0 or an errno.
int send_sendto(const struct job *j, struct done *d);
int send_sendmmsg(const struct job *j, struct done *d);
int send_segmented(const struct job *j, struct done *d);
int send_segmented_vectors(const struct job *j, struct done *d); // an iovec for each datagram
