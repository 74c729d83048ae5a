/* listen.h - listening for connections, and accepting them. */
#ifndef LISTEN_H
#define LISTEN_H

#include <stdbool.h>

#include "net/address.h"

/* Listens on *a, and prints "listening on IP:PORT" to standard output. If the port in
 * *a is 0, any free port is chosen and filled in. If *a is no address of this machine
 * (which may be behind a NAT), and anywhere is true, it listens on all addresses.
 * Returns the socket, non-blocking and close-on-exec. On errors the process exits
 * with a message. */
int listen_open(struct address *a, bool anywhere);

/* Accepts a waiting client from the socket that listen_open returned. Returns the
 * client's socket, non-blocking and close-on-exec, for the caller to close, and sets
 * *client to its address. On errors returns -1 with errno: EAGAIN if no client waits,
 * or if one has gone meanwhile (poll(2) tells whether another waits); any other errno
 * if the system is short of something. */
int listen_accept(int listen_fd, struct address *client);

#endif
