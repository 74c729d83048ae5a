/* peers.h - the peers that a file may be had from: what is known of each, and what becomes
 * of it. What to do with them all is swarm.h's.
 *
 * Nothing here looks at the clock or at a socket: time is given, as of clock_ms, and
 * connections are connection.h's. So the simulation (sim/) runs this code as it is. */
#ifndef PEERS_H
#define PEERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fetch/choice.h"
#include "fetch/connection.h"

#define SWARM_CONNECTED_MAX 128	/* connections at a time, for all files together */

/* A peer. Only peers.c writes to it, but for its connection and the last few fields.
 *
 * Over a long, fat line, and if there is nobody else to ask, a peer has up to three twins:
 * entries with its address and with connections of their own. What becomes known of a twin
 * counts for its peer; its connection ends with the peer's. A twin without a connection is
 * banned: only its place is left. */
struct peer {
	struct address address;
	bool good;		/* the tracker's operator vouches for it */
	bool overdue;		/* the tracker has heard nothing of it when it should have */
	bool direct;		/* named on the command line */
	bool twin;		/* one more connection to a peer */
	uint64_t lot;		/* drawn by chance, the same each time that this run hears of it */

	/* What it showed of itself. */
	bool banned;		/* for the rest of the run */
	bool proven;		/* a chunk of its making had the right hash */
	bool slow;		/* it lost what it was asked for to a faster one */
	bool one_at_a_time;	/* can't take requests ahead */
	bool single;		/* gets no twins: it closed or refused a connection, or they gained nothing */
	bool fetches;		/* it holds parts, as we do, and is of use */
	unsigned rank;		/* how many of those that fetch have a greater lot */
	bool tells;		/* with a refusal it said what it holds: it fetches by shares */
	unsigned closings;	/* connections in a row that it closed after one response, asked for more */
	unsigned failures;	/* since its last good chunk */
	unsigned refusals;	/* "don't have that chunk yet" since its last chunk */
	int64_t rest_until_ms;	/* not connected to before, nor asked while connected */
	bool rests;		/* it did, and was not asked since */
	uint64_t chunks;	/* good ones that it delivered */
	double rate;		/* bytes a second, when it last delivered; 0: not known, */
	bool measured;		/* and until it is, it may be more */
	int64_t answer_ms;	/* its chunks take, from when they are due; 0: not known */
	struct holding holding;
	struct connection connection;

	/* Other modules'. */
	unsigned unchecked;	/* arrival.c: runs of its chunks that no checker has returned */
	size_t turn;		/* ahead.c: among those that are asked */
	bool leaves;		/* swarm.c, twins.c: it is asked for nothing more, and disconnected then */
	int64_t twins_since_ms;	/* twins.c: when the peer got the twins that it has; */
	double alone_rate;	/* and what it delivered alone, in bytes a second */
};

struct swarm_options {
	struct address self;		/* where this peer listens, as the tracker knows it */
	const struct address *peers;	/* named on the command line */
	size_t peer_count;
	bool serves;			/* others fetch from this peer meanwhile */
	bool ascending;			/* in the file's order, from chunk 0 on */
	double time_scale;		/* of the time limits for a connection, for silence, and for slowness; 1 is normal */
};

struct swarm {
	struct swarm_options options;
	uint64_t chunk_size, length;	/* of the file, in bytes */
	const uint8_t *cascade_hash;	/* the caller's */
	struct choice choice;
	struct peer *peers;
	size_t count;
	uint64_t lottery;		/* lots follow from it, and from addresses */
	size_t connected_max;		/* connections at a time; SWARM_CONNECTED_MAX, unless the caller sets it */
	size_t turn;			/* who is asked first of equals, next time */
	bool others_share;		/* some hold parts, and are of use */
	uint64_t taken;			/* chunks that were taken from slow peers, the last time; */
	unsigned takings;		/* times that it was done, since all others are asked for; */
	bool fruitless;			/* and since it was last done, no chunk has come */
	uint64_t wasted;		/* bytes that came and were of no use */
	char trouble[ADDRESS_TEXT_SIZE + 128];	/* the last peer that failed, and why */
	bool unreachable;		/* that was before there was a connection */
};

/* Begins to fetch a file of that length, not 0, with the peers that the options name; all
 * its chunks are wanted. Returns 0, or -1 with errno if there is no memory. swarm_end
 * disconnects from all and frees what was taken. */
int swarm_begin(struct swarm *s, uint64_t length, uint64_t chunk_size, const uint8_t cascade_hash[SHA256_HASH_SIZE],
		const struct swarm_options *options);
void swarm_end(struct swarm *s, int64_t now_ms);

/* Disconnects from all, for good. */
void swarm_leave(struct swarm *s, int64_t now_ms);

/* Adds the peers that the tracker names, as far as there can be any at their addresses
 * and there is room, or somebody with a lesser lot to forget. Returns how many of them can be
 * used; *news tells whether there was room for one that was not known before. */
unsigned swarm_add_entries(struct swarm *s, const struct tracker_entry entries[], size_t count, bool *news);

/* Whether there is a peer that may have something for us. */
bool swarm_has_usable_peer(const struct swarm *s);

/* Whether there is a peer that has not failed since it last did well. */
bool swarm_has_reachable_peer(const struct swarm *s);

/* How many peers are connected to, each counted once; whether nothing is asked of any. */
size_t swarm_connected(const struct swarm *s);
bool swarm_is_idle(const struct swarm *s);

/* ---- what becomes of a peer ------------------------------------------------ */

/* Its address, as text in static memory. */
const char *swarm_name(const struct peer *p);

/* A connection attempt has ended, well or not. */
void swarm_connecting_ended(struct swarm *s, struct peer *p, int64_t now_ms);

/* Ends the connection; what was asked for over it becomes wanted again. */
void swarm_disconnect(struct swarm *s, struct peer *p, int64_t now_ms);

/* The peer hung up, after at least one response: that is its right. Whoever does so again
 * and again after the first one is from then on asked for one chunk with each connection. */
void swarm_hung_up(struct swarm *s, struct peer *p, int64_t now_ms);

/* The peer or the way to it failed: it is left alone for a while. */
void swarm_fail(struct swarm *s, struct peer *p, const char *why, int64_t now_ms);

/* The peer doesn't have the file: it is left alone for longer. */
void swarm_lacks_file(struct swarm *s, struct peer *p, int64_t now_ms);

/* The peer can't parse what it is sent: it is asked for one chunk at a time, and if that
 * is what it was asked for, for nothing more. */
void swarm_cannot_parse(struct swarm *s, struct peer *p, int64_t now_ms);

/* The peer doesn't keep to the protocol, or sent a wrong chunk: nothing more is asked of
 * it. */
void swarm_ban(struct swarm *s, struct peer *p, const char *why, int64_t now_ms);

/* So many bytes have come from the peer. */
void swarm_heard(struct peer *p, size_t bytes, int64_t now_ms);

/* The chunk that the peer was asked for has begun to arrive; has arrived whole. */
void swarm_chunk_begins(const struct swarm *s, struct peer *p);
void swarm_chunk_arrived(struct peer *p, int64_t now_ms);

/* The peer refuses the chunk that it was asked for, having it not yet; held, if not NULL,
 * is what it says that it holds. */
void swarm_chunk_refused(struct swarm *s, struct peer *p, const struct region_set *held, int64_t now_ms);

/* A response is complete, and whatever came of it is done. */
void swarm_answered(struct swarm *s, struct peer *p, int64_t now_ms);

/* So many chunks of the peer's proved to be right. */
void swarm_delivered(struct swarm *s, struct peer *p, uint64_t chunks);

/* So many bytes of a chunk that arrived are of no use; it is wanted again. */
void swarm_chunk_wasted(struct swarm *s, uint64_t chunk, uint64_t bytes);

/* ---- for swarm.c, ahead.c, slow.c and twins.c ------------------------------- */

#define PEERS_MAX 192		/* known at a time, of a file */
#define SHARERS_MAX 16		/* connected to, of those that fetch as we do */
#define PEER_REFUSALS_MAX 64	/* in a row: it is of no use now */
#define PEER_SLOW_MS 1000	/* a response may take, before its peer can be found too slow; --timeout scales it */

/* That many ms, as --timeout scales them. */
int swarm_scaled(const struct swarm *s, int ms);

/* Whether there is a connection to the peer, or one is being made. */
bool peer_is_connected(const struct peer *p);

/* How many connections there are. Those to twins, and those that are being made, count. */
size_t swarm_connections(const struct swarm *s);

/* Whether what came from the peer tells its rate. One that was left for being slow may just
 * have begun. */
bool peer_shows_rate(const struct peer *p);

/* Whether more is to be hoped for from p than from q: first by what was seen of them,
 * then by what the tracker says. */
bool peer_is_better(const struct peer *p, const struct peer *q);

/* The peer itself, if p may be a twin; or the twin, if its peer isn't known any more. */
struct peer *swarm_peer_of(const struct swarm *s, struct peer *p);

/* Sets whether the peer is one that fetches. */
void swarm_set_fetches(struct swarm *s, struct peer *p, bool fetches);

/* Whether peers that were too slow are tried one after the other, since nothing came from
 * whoever was asked in place of one. Not where others share: they have queues. */
bool swarm_tries_in_turn(const struct swarm *s);

/* Whether the peer fetches, and others that do have greater lots: enough of them to be
 * connected to. Where each fetcher is connected to some of the others, drawn by chance, all
 * of them are asked about alike; and what they hold is asked after more often. */
bool peer_is_spare(const struct peer *p);

/* Room for one more peer, if need be at the cost of the one that failed most.
 * NULL: there is none. */
struct peer *swarm_find_room(struct swarm *s);

/* Whether this is the entry of a connection that the peer has beyond its first one. */
bool peer_is_twin_of(const struct peer *twin, const struct peer *p);

/* A twin has failed, for that reason: its peer is asked over one connection only from
 * now on. */
void swarm_make_single(struct swarm *s, struct peer *twin, const char *why, int64_t now_ms);

/* Puts a twin of the peer into that place. Its connection is for the caller to open. */
void swarm_place_twin(struct swarm *s, struct peer *twin, const struct peer *p);

/* Ends the connection of this peer, but not its twins'. */
void swarm_disconnect_one(struct swarm *s, struct peer *p, int64_t now_ms);

/* The twins of the peer gained nothing: it gets no more, once these are gone. */
void swarm_no_more_twins(struct peer *p);

/* What the peer was asked for is wanted again, since others would deliver it much sooner. It
 * is not asked while there is another. */
void swarm_too_slow(struct swarm *s, struct peer *p, int64_t now_ms);

/* The peer is about to be asked. If it has rested, it may have by now what it lacked. */
void swarm_rested(struct peer *p);

/* The peer is not asked for about ms milliseconds. */
void swarm_rest(struct peer *p, int64_t ms, int64_t now_ms);

/* The same for a peer that has nothing for us, but may have something after a rest. Then
 * it is asked for what it isn't known to have, and tells what it has. */
void swarm_rest_refused(struct peer *p, int64_t now_ms);

#endif
