/* listen.h - listening for connections, and accepting them. */
#ifndef LISTEN_H
#define LISTEN_H

#include <stdbool.h>

#include "net/address.h"

/* Listens at *a, fills in the port that was chosen if it is 0 there, and prints
 * "listening on IP:PORT" to standard output. Where *a is no address of this
 * machine (it is behind a NAT, maybe), all of them will do if anywhere is true.
 * Returns the socket, non-blocking and close-on-exec; else the process ends, with
 * a message. */
int listen_open(struct address *a, bool anywhere);

/* Accepts a client that waits at the socket of listen_open. Returns its socket,
 * non-blocking and close-on-exec, the caller's to close, and sets *client to its
 * address. Else returns -1 with errno: EAGAIN if nobody waits, or the client has
 * gone meanwhile (poll tells whether another waits); any other if the system lacks
 * something for now. */
int listen_accept(int listen_fd, struct address *client);

#endif
