/* give_way.h - which client gives way to a new one when --max-clients are connected.
 *
 * One that has been of no use (slot.h) for too long does, and the longest first.
 * While the child itself holds its client up, reading, hashing, or kept to a limit,
 * that client never does. So a crowd of silent or slow clients locks nobody out.
 * Without this a new client waits until another one leaves, and nothing else
 * changes: the children end clients that keep silent by themselves (serve_client.h). */
#ifndef GIVE_WAY_H
#define GIVE_WAY_H

#include <stdbool.h>

/* Kills the child whose client has been of no use for longest, unless one is
 * leaving already. Returns whether one is; else all clients may stay for now. */
bool give_way(void);

#endif
