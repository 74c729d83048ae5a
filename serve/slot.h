/* slot.h - what a serving child tells the serving parent about its client. They share
 * the memory: the child writes, the parent reads.
 *
 * The parent has to know how long a client has been idle. Only chunks count: a client
 * is active when it asks for a held chunk and takes it. Bytes of incomplete requests
 * don't count, nor do requests for chunks that are not held. If the child never had to
 * wait for the client to take the chunk, the client was active until it had taken it.
 * If the child had to wait, each CLIENT_RATE bytes that the client takes of answers
 * with chunks count as one second of activity. */
#ifndef SLOT_H
#define SLOT_H

#include <stdatomic.h>
#include <stdint.h>

#define CLIENT_RATE 16384	/* bytes a second */

enum client_state {
	CLIENT_WORKING,		/* the child reads, hashes or sends; the client is not idle */
	CLIENT_SILENT,		/* the child waits for a request for a held chunk */
	CLIENT_SLOW		/* the child waits for the client to take chunks */
};

struct client_slot {
	_Atomic uint32_t state;		/* an enum client_state; written last */
	_Atomic uint32_t since_ms;	/* until when the client was active: the low bits of clock_ms.
					 * CLIENT_SLOW: may lie in the future */
	_Atomic uint32_t chunks;	/* sent to the client */
	_Atomic uint32_t sent_kib;	/* likewise, in KiB */
};

#endif
