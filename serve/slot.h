/* slot.h - what a serving child tells the serving parent of its client, in memory
 * that they share: the child writes, the parent looks.
 *
 * Useful work of a client is a chunk: asked for with a whole request, sent, and
 * taken. Nothing else is, neither bytes of a request, nor requests that get no
 * chunk. A client is of use until now whenever it has taken a chunk for which the
 * child never had to wait. Where the child has to wait for it to take more, each
 * CLIENT_RATE bytes that it takes of answers with chunks are a second of use. */
#ifndef SLOT_H
#define SLOT_H

#include <stdatomic.h>
#include <stdint.h>

#define CLIENT_RATE 16384	/* bytes a second */

enum client_state {
	CLIENT_WORKING,		/* the child has a chunk to send: the client is not to blame */
	CLIENT_SILENT,		/* it waits for a request that gets a chunk */
	CLIENT_SLOW		/* it waits for the client to take what it is sent */
};

struct client_slot {
	_Atomic uint32_t state;		/* an enum client_state; written last */
	_Atomic uint32_t since_ms;	/* until when the client was of use: the low bits of clock_ms.
					 * CLIENT_SLOW: may lie ahead */
	_Atomic uint32_t chunks;	/* sent to the client */
	_Atomic uint32_t sent_kib;	/* likewise, in KiB */
};

#endif
