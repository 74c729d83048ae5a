/* swarm.h - the peers that a file may be had from: what is known of each, who
 * is connected to, and which chunk is asked of whom. */
#ifndef SWARM_H
#define SWARM_H

#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fetch/fetch.h"
#include "file/metafile.h"
#include "fetch/peer_fetch.h"
#include "fetch/shares.h"
#include "fetch/wanted.h"

#define SWARM_CONNECTED_MAX 128	/* at a time */

struct swarm {
	const struct metafile *meta;		/* the caller's, as options are */
	const struct fetch_options *options;
	struct wanted wanted;
	struct peer *peers;
	size_t count;
	struct shares shares;	/* of the file, among us and those like us */
	struct order order;	/* in which we fetch */
	uint64_t wasted;	/* bytes that came and were of no use */
	int64_t good_ms;	/* when the last good chunk came, or it all began */
	char trouble[ADDRESS_TEXT_SIZE + 128];	/* the last peer that failed, and why */
	bool unreachable;	/* that was before there was a connection */
};

/* Begins, with the peers that the options name; wanted is what isn't held.
 * Returns 0, or -1 with errno if there is no memory. swarm_end disconnects from
 * all and frees what was taken. */
int swarm_begin(struct swarm *s, const struct metafile *m, const struct held *held,
		const struct fetch_options *options);
void swarm_end(struct swarm *s);

/* Adds the peers that the tracker names, as far as there can be any at their
 * addresses and there is room. Returns how many of them can be used. */
unsigned swarm_add_entries(struct swarm *s, const struct tracker_entry entries[], size_t count);

/* Whether there is a peer that may have something for us. */
bool swarm_has_usable_peer(const struct swarm *s);

/* Whether there is a peer that has not failed since it last did well. */
bool swarm_has_reachable_peer(const struct swarm *s);

/* Ends what takes too long, connects to whom it pays, and asks for chunks. To be
 * called before each poll. */
void swarm_manage(struct swarm *s);

/* When swarm_manage will have something to do even if nothing comes: next_ms, or
 * a time before that. */
int64_t swarm_next_event_ms(const struct swarm *s, int64_t next_ms);

/* Fills in what to poll for and which peer each is; returns how many they are. */
nfds_t swarm_poll(const struct swarm *s, struct pollfd polled[SWARM_CONNECTED_MAX],
		  struct peer *who[SWARM_CONNECTED_MAX]);

/* How many peers are connected to; whether nothing is asked of any. */
size_t swarm_connected(const struct swarm *s);
bool swarm_is_idle(const struct swarm *s);

/* ---- what becomes of a peer ------------------------------------------------ */

/* Its address, as text in static memory. */
const char *swarm_name(const struct peer *p);

/* A connection attempt has ended, well or not. */
void swarm_connection_made(struct swarm *s, struct peer *p);

/* Ends the connection; what was asked for over it becomes wanted again. */
void swarm_disconnect(struct swarm *s, struct peer *p);

/* The peer or the way to it failed: it is left alone for a while. */
void swarm_fail(struct swarm *s, struct peer *p, const char *why);

/* The peer doesn't have the file: it is left alone for longer. */
void swarm_lacks_file(struct swarm *s, struct peer *p);

/* The peer doesn't keep to the protocol: nothing more is asked of it. */
void swarm_ban(struct swarm *s, struct peer *p, const char *why);

/* The peer doesn't have the chunk yet: it is asked for others first. Or it does:
 * its chunk begins to arrive. */
void swarm_lacks_chunk(struct swarm *s, struct peer *p, uint64_t chunk);
void swarm_has_chunk(struct peer *p);

/* So many chunks of the peer's proved to be right. */
void swarm_delivered(struct swarm *s, struct peer *p, uint64_t chunks);

#endif
