/* give_way.h - which client gives way to a new one when --max-clients are connected.
 *
 * The client that has been idle (slot.h) for longest gives way, if that was too long. A
 * client never gives way while its child keeps it waiting: while that reads, hashes, or
 * has to keep the upload limit. So many silent or slow clients can't lock others out.
 * Without this module a new client would wait until another one leaves, and nothing
 * else would change: the children themselves disconnect clients that stay silent
 * (serve_client.h). */
#ifndef GIVE_WAY_H
#define GIVE_WAY_H

#include <stdbool.h>

/* Kills the child whose client has been idle for longest, unless a child was killed
 * already and has not ended yet. Returns whether a place will become free; false: no
 * client has been idle for too long. */
bool give_way(void);

#endif
