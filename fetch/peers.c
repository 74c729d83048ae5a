/* peers.c - the peers of a file: what is known of each, and what becomes of it. */
#include "fetch/peers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"

#define REST_MS 1000		/* after a failure; twice as long after each more, up to */
#define REST_MAX_MS 60000
#define NO_FILE_REST_MS 60000	/* for a peer that doesn't have the file */
#define REFUSED_REST_MS 50	/* for one that has nothing for us now; twice as long after each more refusal, */
#define REFUSED_REST_MAX_MS 200	/* up to this, */
#define SILENT_REST_MAX_MS 5000	/* or this, if it doesn't say what it has */
#define PROBES 4		/* of a peer that doesn't say what it has, between two rests */

#define CLOSINGS_ALWAYS 2	/* one may have been by chance */
#define PEERS_SIZE (PEERS_MAX * sizeof(struct peer))
#define OVERDUE_S 660		/* not heard of by the tracker; every 600 s a peer subscribes again */

static struct peer *find_peer(const struct swarm *s, struct address a)
{
	for (size_t i = 0; i < s->count; i++) {
		struct peer *p = &s->peers[i];
		if (!p->twin && p->address.ip == a.ip && p->address.port == a.port)
			return p;
	}
	return NULL;
}

struct peer *swarm_peer_of(const struct swarm *s, struct peer *p)
{
	struct peer *known = p->twin ? find_peer(s, p->address) : NULL;

	return known != NULL ? known : p;
}

int swarm_scaled(const struct swarm *s, int ms)
{
	return (int)(ms * s->options.time_scale);
}

bool peer_is_connected(const struct peer *p)
{
	return connection_is_open(&p->connection);
}

/* ---- what becomes of a peer ------------------------------------------------ */

const char *swarm_name(const struct peer *p)
{
	static char text[ADDRESS_TEXT_SIZE];

	return address_text(p->address, text);
}

void swarm_disconnect_one(struct swarm *s, struct peer *p, int64_t now_ms)
{
	struct connection *c = &p->connection;

	if (!peer_is_connected(p))
		return;
	if (connection_missing_of_chunk(c) > 0)
		s->wasted += c->body_got;
	for (; c->asked_count > 0; connection_forget_awaited(c, now_ms))
		choice_give_back(&s->choice, connection_awaited(c));
	connection_close(c);
	p->banned = p->banned || p->twin;
	p->leaves = false;
}

bool peer_is_twin_of(const struct peer *twin, const struct peer *p)
{
	return twin->twin && peer_is_connected(twin) && twin->address.ip == p->address.ip &&
	       twin->address.port == p->address.port;
}

static void disconnect_twins(struct swarm *s, const struct peer *p, int64_t now_ms)
{
	for (size_t i = 0; i < s->count; i++)
		if (peer_is_twin_of(&s->peers[i], p))
			swarm_disconnect_one(s, &s->peers[i], now_ms);
}

void swarm_disconnect(struct swarm *s, struct peer *p, int64_t now_ms)
{
	swarm_disconnect_one(s, p, now_ms);
	if (!p->twin)
		disconnect_twins(s, p, now_ms);
}

void swarm_make_single(struct swarm *s, struct peer *twin, const char *why, int64_t now_ms)
{
	struct peer *p = swarm_peer_of(s, twin);

	log_debug("%s: one more connection to it: %s", swarm_name(p), why);
	p->single = true;
	twin->banned = twin->banned || !peer_is_connected(twin);
	disconnect_twins(s, twin, now_ms);
}

void swarm_no_more_twins(struct peer *p)
{
	p->single = true;
}

void swarm_hung_up(struct swarm *s, struct peer *p, int64_t now_ms)
{
	if (p->twin) {
		swarm_make_single(s, p, "closed", now_ms);
		return;
	}
	log_debug("%s: closed the connection", swarm_name(p));
	p->single = true;
	p->closings += p->connection.answers == 1 && p->connection.asked_count > 0;
	swarm_disconnect(s, p, now_ms);
}

void swarm_rest(struct peer *p, int64_t ms, int64_t now_ms)
{
	p->rest_until_ms = now_ms + clock_jittered(ms);
	p->rests = true;
}

/* Twice as long after each more, up to a limit. */
static int64_t doubled(int64_t ms, unsigned times, int64_t most_ms)
{
	ms <<= times < 10 ? times : 10;
	return ms < most_ms ? ms : most_ms;
}

void swarm_fail(struct swarm *s, struct peer *p, const char *why, int64_t now_ms)
{
	if (p->twin) {
		swarm_make_single(s, p, why, now_ms);
		return;
	}
	log_debug("%s: %s", swarm_name(p), why);
	p->single = true;
	snprintf(s->trouble, sizeof s->trouble, "%s: %s", swarm_name(p), why);
	s->unreachable = p->connection.connecting || !peer_is_connected(p);
	swarm_disconnect(s, p, now_ms);
	choice_forget(&s->choice, &p->holding, p->address);
	swarm_rest(p, doubled(REST_MS, p->failures, REST_MAX_MS), now_ms);
	p->failures++;
}

void swarm_rest_refused(struct peer *p, int64_t now_ms)
{
	swarm_rest(p, doubled(REFUSED_REST_MS, p->refusals, REFUSED_REST_MAX_MS), now_ms);
}

void swarm_too_slow(struct swarm *s, struct peer *p, int64_t now_ms)
{
	p->slow = true;
	swarm_fail(s, p, "too slow for the rest", now_ms);
}

void swarm_rested(struct peer *p)
{
	if (p->rests)
		choice_forget_lacks(&p->holding);
	p->rests = false;
}

void swarm_lacks_file(struct swarm *s, struct peer *p, int64_t now_ms)
{
	p = swarm_peer_of(s, p);
	swarm_fail(s, p, "doesn't have the file", now_ms);
	swarm_rest(p, NO_FILE_REST_MS, now_ms);
}

void swarm_ban(struct swarm *s, struct peer *p, const char *why, int64_t now_ms)
{
	p = swarm_peer_of(s, p);
	if (!p->banned)
		log_warnx("%s: %s; it is not asked again", swarm_name(p), why);
	p->banned = true;
	swarm_disconnect(s, p, now_ms);
	choice_forget(&s->choice, &p->holding, p->address);
}

void swarm_cannot_parse(struct swarm *s, struct peer *p, int64_t now_ms)
{
	if (p->twin) {
		swarm_make_single(s, p, "can't parse a request", now_ms);
	} else if (p->one_at_a_time || (p->connection.asked_count == 1 && p->connection.answers == 0)) {
		swarm_ban(s, p, "can't parse a request", now_ms);
	} else {
		log_debug("%s: takes one request at a time", swarm_name(p));
		swarm_disconnect(s, p, now_ms);
		p->one_at_a_time = true;
	}
}

void swarm_heard(struct peer *p, size_t bytes, int64_t now_ms)
{
	connection_heard(&p->connection, bytes, now_ms);
	double rate = connection_rate(&p->connection, now_ms);
	bool is_measured = connection_is_measured(&p->connection);

	if (is_measured || rate > p->rate)
		p->rate = rate;
	p->measured = p->measured || is_measured;
}

void swarm_chunk_begins(const struct swarm *s, struct peer *p)
{
	swarm_peer_of(s, p)->refusals = 0;
}

void swarm_chunk_arrived(struct peer *p, int64_t now_ms)
{
	int64_t ms = now_ms - p->connection.due_ms + 1;

	p->answer_ms = p->answer_ms > 0 ? (3 * p->answer_ms + ms) / 4 : ms;
	connection_forget_awaited(&p->connection, now_ms);
}

/* Whatever else it may have is asked for at once. If that is nothing, it rests: meanwhile
 * it may get something. */
void swarm_chunk_refused(struct swarm *s, struct peer *p, const struct region_set *held, int64_t now_ms)
{
	uint64_t chunk = connection_awaited(&p->connection);

	log_debug("%s: doesn't have chunk %llu yet", swarm_name(p), (unsigned long long)chunk);
	choice_give_back(&s->choice, chunk);
	connection_forget_awaited(&p->connection, now_ms);
	p = swarm_peer_of(s, p);
	choice_refused(&s->choice, &p->holding, chunk, held);
	p->tells = held != NULL;
	p->refusals++;
	if (held == NULL && p->refusals % PROBES == 0)
		swarm_rest(p, doubled(REFUSED_REST_MS, p->refusals / PROBES - 1, SILENT_REST_MAX_MS), now_ms);
}

void swarm_answered(struct swarm *s, struct peer *p, int64_t now_ms)
{
	if (++p->connection.answers > 1)
		p->closings = 0;
	else if (p->closings >= CLOSINGS_ALWAYS)
		swarm_disconnect(s, p, now_ms);	/* as it does; the next connection needn't wait for it */
}

void swarm_delivered(struct swarm *s, struct peer *p, uint64_t chunks)
{
	struct peer *known = swarm_peer_of(s, p);

	if (known != p)
		p->chunks += chunks;	/* for window_alone; it isn't told of */
	p = known;
	p->chunks += chunks;
	p->proven = true;
	p->failures = 0;
	s->fruitless = false;
}

void swarm_chunk_wasted(struct swarm *s, uint64_t chunk, uint64_t bytes)
{
	choice_give_back(&s->choice, chunk);
	s->wasted += bytes;
}

/* ---- who is known ------------------------------------------------------------ */

/* Who has the highest goes first when the table is full; 0: the peer stays. A banned one
 * goes last: should it come back, it has a chunk to waste. */
static unsigned badness(const struct peer *p)
{
	return p->banned ? 1 : p->failures > 0 ? 2 * p->failures : p->refusals >= PEER_REFUSALS_MAX;
}

struct peer *swarm_find_room(struct swarm *s)
{
	struct peer *worst = NULL;

	if (s->count < PEERS_MAX)
		return &s->peers[s->count++];
	for (size_t i = 0; i < s->count; i++) {
		struct peer *p = &s->peers[i];
		if (!peer_is_connected(p) && p->unchecked == 0 && !p->direct && badness(p) > 0 &&
		    (worst == NULL || badness(p) > badness(worst)))
			worst = p;
	}
	return worst;
}

static uint64_t lot_of(const struct swarm *s, struct address a)
{
	return choice_claim(a, s->lottery);
}

/* Of the peers that hold parts, and could be forgotten now, the one with the least lot, if
 * that is less than this one. NULL: there is none. */
static struct peer *find_lesser(const struct swarm *s, uint64_t lot)
{
	struct peer *least = NULL;

	for (size_t i = 0; i < s->count; i++) {
		struct peer *p = &s->peers[i];
		if (p->holding.partial && !p->direct && !peer_is_connected(p) && p->unchecked == 0 &&
		    p->lot < lot) {
			lot = p->lot;
			least = p;
		}
	}
	return least;
}

void swarm_set_fetches(struct swarm *s, struct peer *p, bool fetches)
{
	if (p->fetches == fetches)
		return;
	p->fetches = fetches;
	p->rank = 0;
	for (size_t i = 0; i < s->count; i++) {
		struct peer *q = &s->peers[i];
		if (!q->fetches || q == p)
			continue;
		if (q->lot < p->lot)
			q->rank = fetches ? q->rank + 1 : q->rank - 1;
		else
			p->rank += fetches;
	}
}

bool swarm_tries_in_turn(const struct swarm *s)
{
	return s->fruitless && !s->others_share;
}

bool peer_is_spare(const struct peer *p)
{
	return p->rank >= SHARERS_MAX;
}

/* Puts a peer of which nothing is known into that place. */
static void take_place(struct swarm *s, struct peer *p, struct address a)
{
	swarm_set_fetches(s, p, false);
	choice_forget(&s->choice, &p->holding, p->address);
	*p = (struct peer){.address = a, .connection.fd = -1, .lot = lot_of(s, a)};
}

void swarm_place_twin(struct swarm *s, struct peer *twin, const struct peer *p)
{
	take_place(s, twin, p->address);
	twin->twin = twin->proven = true;
}

/* Adds a peer at that address, which is not known; where there is no room, in place of one
 * with a lesser lot. NULL: there is none. */
static struct peer *add_peer(struct swarm *s, struct address a, bool *had_room)
{
	struct peer *p = swarm_find_room(s);

	*had_room = p != NULL;
	if (p == NULL)
		p = find_lesser(s, lot_of(s, a));
	if (p != NULL)
		take_place(s, p, a);
	return p;
}

static bool is_loopback(uint32_t ip)
{
	return ip >> 24 == 127;
}

/* Whether there can be another peer at that address. A tracker may know
 * 127.0.0.1 for a peer on its own machine; elsewhere it means something else. */
static bool is_usable(const struct swarm *s, struct address a)
{
	const struct address self = s->options.self;

	return a.port != 0 && a.ip >> 24 != 0 && a.ip >> 28 < 14 &&
	       (a.ip != self.ip || a.port != self.port) &&
	       (!is_loopback(a.ip) || is_loopback(self.ip) || self.ip == 0);
}

unsigned swarm_add_entries(struct swarm *s, const struct tracker_entry entries[], size_t count, bool *news)
{
	uint32_t latest = 0;	/* by the tracker's clock, which may not be ours */
	unsigned usable = 0;

	*news = false;
	for (size_t i = 0; i < count; i++)
		if (entries[i].last_seen > latest)
			latest = entries[i].last_seen;
	for (size_t i = 0; i < count; i++) {
		const struct tracker_entry *entry = &entries[i];
		struct peer *p = find_peer(s, entry->address);
		bool had_room = false;
		if (!is_usable(s, entry->address))
			continue;
		if (p == NULL && (p = add_peer(s, entry->address, &had_room)) == NULL)
			continue;
		*news = *news || had_room;
		p->good = entry->good;
		p->overdue = latest - entry->last_seen > OVERDUE_S;
		usable++;
	}
	return usable;
}

bool swarm_has_usable_peer(const struct swarm *s)
{
	for (size_t i = 0; i < s->count; i++) {
		const struct peer *p = &s->peers[i];
		if (!p->banned && p->failures == 0 && p->refusals < PEER_REFUSALS_MAX)
			return true;
	}
	return false;
}

bool swarm_has_reachable_peer(const struct swarm *s)
{
	for (size_t i = 0; i < s->count; i++)
		if (!s->peers[i].banned && s->peers[i].failures == 0)
			return true;
	return false;
}

int swarm_begin(struct swarm *s, uint64_t length, uint64_t chunk_size, const uint8_t cascade_hash[SHA256_HASH_SIZE],
		const struct swarm_options *options)
{
	enum choice_order order = options->ascending ? ORDER_ASCENDING
		: options->serves && options->self.ip != 0 ? ORDER_BY_CLAIM : ORDER_FROM_ANYWHERE;

	*s = (struct swarm){
		.options = *options, .length = length, .chunk_size = chunk_size, .cascade_hash = cascade_hash,
		.connected_max = SWARM_CONNECTED_MAX, .lottery = (uint64_t)random(),
	};
	s->peers = memory_unforked(PEERS_SIZE);
	if (s->peers == NULL)
		return -1;
	if (choice_begin(&s->choice, (length - 1) / chunk_size + 1, options->self, order) < 0) {
		munmap(s->peers, PEERS_SIZE);
		return -1;
	}
	for (size_t i = 0; i < options->peer_count; i++) {
		struct peer *p = find_peer(s, options->peers[i]);
		bool had_room;
		if (p != NULL || (p = add_peer(s, options->peers[i], &had_room)) != NULL)
			p->direct = true;
	}
	return 0;
}

void swarm_leave(struct swarm *s, int64_t now_ms)
{
	for (size_t i = 0; i < s->count; i++)
		swarm_disconnect(s, &s->peers[i], now_ms);
}

void swarm_end(struct swarm *s, int64_t now_ms)
{
	swarm_leave(s, now_ms);
	choice_end(&s->choice);
	munmap(s->peers, PEERS_SIZE);
}

/* ---- connections ---------------------------------------------------------------- */

bool peer_shows_rate(const struct peer *p)
{
	return p->slow ? p->measured : p->rate > 0;
}

bool peer_is_better(const struct peer *p, const struct peer *q)
{
	if (p->slow != q->slow)
		return q->slow;
	if (p->rate > 0 || q->rate > 0)
		return p->rate > q->rate;
	if (p->failures != q->failures)
		return p->failures < q->failures;
	if (p->overdue != q->overdue)
		return q->overdue;
	return p->good && !q->good;
}

size_t swarm_connections(const struct swarm *s)
{
	size_t count = 0;

	for (size_t i = 0; i < s->count; i++)
		count += peer_is_connected(&s->peers[i]);
	return count;
}

size_t swarm_connected(const struct swarm *s)
{
	size_t connected = 0;

	for (size_t i = 0; i < s->count; i++)
		connected += peer_is_connected(&s->peers[i]) && !s->peers[i].twin;
	return connected;
}

void swarm_connecting_ended(struct swarm *s, struct peer *p, int64_t now_ms)
{
	int error = connection_made(&p->connection, now_ms);

	if (error != 0)
		swarm_fail(s, p, strerror(error), now_ms);
	else
		log_debug("%s: connected", swarm_name(p));
}

bool swarm_is_idle(const struct swarm *s)
{
	for (size_t i = 0; i < s->count; i++)
		if (s->peers[i].connection.connecting || s->peers[i].connection.asked_count > 0)
			return false;
	return true;
}
