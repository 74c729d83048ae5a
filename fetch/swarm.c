/* swarm.c - what is known of peers, who is connected to, and how much is asked of
 * whom; used by the fetcher. */
#include "fetch/swarm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

/* Every wait for a peer has a limit. --timeout scales these: */
#define CONNECT_MS 5000		/* a SYN and two more of them get lost, and still it connects */
#define SILENCE_MS 10000	/* without a byte while something is asked for */
#define SLOW_MS 1000		/* a response may take, before its peer can be found too slow */
#define LOOK_MS 250		/* between two looks at who is slow, when all is asked for */
#define QUEUE_MS 2000		/* with no more than so many bytes: what was asked for waits in a queue */
#define QUEUE_BYTES 8192
#define HOPELESS_RATE 1024	/* bytes a second: less, */
#define HOPELESS_S 60		/* and so long to go, and it is left though nobody is known to have the chunk */
#define PATIENCE_MS 500		/* of ours, for many bytes at a time; then any are enough */

#define REST_MS 1000		/* after a failure; twice as long after each more, up to */
#define REST_MAX_MS 60000
#define NO_FILE_REST_MS 60000	/* for a peer that doesn't have the file */
#define REFUSED_REST_MS 50	/* for one that has nothing for us now; twice as long after each more refusal, */
#define REFUSED_REST_MAX_MS 200	/* up to this, */
#define SILENT_REST_MAX_MS 5000	/* or this, if it doesn't say what it has */
#define PROBES 4		/* of a peer that doesn't say what it has, between two rests */
#define REFUSALS_MAX 64		/* in a row: it is of no use now */

#define PEERS_MAX 192		/* known at a time */
#define CLOSINGS_ALWAYS 2	/* one may have been by chance */
#define OVERDUE_S 660		/* not heard of by the tracker; every 600 s a peer subscribes again */

/* Bytes that a peer is asked for ahead of what it sends: what it can deliver in a
 * second. A fast one near by is asked for less: that it fills our socket's buffer
 * gains nothing, and from then on it is we who make it send, in the time in which we
 * could take what it sends. Over a long line it takes some round trips' worth: 100 ms
 * at 1 Gbit/s are 12 MiB; some ways of congestion control look for three times that
 * at the start, and take a cap below for the sender having nothing more to say. */
#define WINDOW_FIRST (1u << 20)
#define WINDOW_NEAR (4u << 20)
#define WINDOW_MAX (64u << 20)
#define ROUND_TRIPS 8

/* Where others share, little is asked for ahead: what is asked of one can't be had from
 * another, and a chunk that waits in a long queue is passed on late. */
#define AHEAD_MS 250		/* of what the peer, or all that hold parts, deliver; */
#define AHEAD_CHUNKS 6		/* and so many chunks, of all that hold parts together */
#define PEACE 8			/* times as long as its answers take of late, a peer that holds everything is spared */

/* A kernel lends each connection a few MiB, and over a long line that is all that it carries
 * in a round trip. */
#define TWINS_MAX 3		/* connections to a peer beyond its first one, */
#define TWINS_ROUND_TRIP_MS 20	/* over a line as long as that, or longer, */
#define TWINS_BYTES (1u << 20)	/* if the first one carries so many in each round trip, */
#define TWINS_WANTED 8		/* and there is so much more to fetch, in such round trips */
#define TWINS_TRIAL_MS 2000	/* later all of them must deliver */
#define TWINS_GAIN 1.5		/* times as much as the first one did alone */
#define TWIN_SILENCE_MS 1000	/* the peer may have no room for it */

static int scaled(const struct swarm *s, int ms)
{
	return (int)(ms * s->options.time_scale);
}

/* One that is being made counts. */
static bool has_connection(const struct peer *p)
{
	return connection_is_open(&p->connection);
}

static struct peer *find_peer(const struct swarm *s, struct address a)
{
	for (size_t i = 0; i < s->count; i++) {
		struct peer *p = &s->peers[i];
		if (!p->twin && p->address.ip == a.ip && p->address.port == a.port)
			return p;
	}
	return NULL;
}

/* The peer itself, if p may be a twin; or the twin, if its peer isn't known any more. */
static struct peer *peer_of(const struct swarm *s, struct peer *p)
{
	struct peer *known = p->twin ? find_peer(s, p->address) : NULL;

	return known != NULL ? known : p;
}

/* ---- what becomes of a peer ------------------------------------------------ */

const char *swarm_name(const struct peer *p)
{
	static char text[ADDRESS_TEXT_SIZE];

	return address_text(p->address, text);
}

static void disconnect(struct swarm *s, struct peer *p, int64_t now_ms)
{
	struct connection *c = &p->connection;

	if (!has_connection(p))
		return;
	if (connection_missing_of_chunk(c) > 0)
		s->wasted += c->body_got;
	for (; c->asked_count > 0; connection_forget_awaited(c, now_ms))
		choice_give_back(&s->choice, connection_awaited(c));
	connection_close(c);
	p->banned = p->banned || p->twin;
}

static bool is_twin_of(const struct peer *twin, const struct peer *p)
{
	return twin->twin && has_connection(twin) && twin->address.ip == p->address.ip &&
	       twin->address.port == p->address.port;
}

static void disconnect_twins(struct swarm *s, const struct peer *p, int64_t now_ms)
{
	for (size_t i = 0; i < s->count; i++)
		if (is_twin_of(&s->peers[i], p))
			disconnect(s, &s->peers[i], now_ms);
}

void swarm_disconnect(struct swarm *s, struct peer *p, int64_t now_ms)
{
	disconnect(s, p, now_ms);
	if (!p->twin)
		disconnect_twins(s, p, now_ms);
}

/* The peer is asked over one connection only from now on. */
static void make_single(struct swarm *s, struct peer *twin, const char *why, int64_t now_ms)
{
	struct peer *p = peer_of(s, twin);

	log_debug("%s: one more connection to it: %s", swarm_name(p), why);
	p->single = true;
	disconnect_twins(s, twin, now_ms);
}

void swarm_hung_up(struct swarm *s, struct peer *p, int64_t now_ms)
{
	if (p->twin) {
		make_single(s, p, "closed", now_ms);
		return;
	}
	log_debug("%s: closed the connection", swarm_name(p));
	p->single = true;
	p->closings += p->connection.answers == 1 && p->connection.asked_count > 0;
	swarm_disconnect(s, p, now_ms);
}

static void rest(struct peer *p, int64_t ms, int64_t now_ms)
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
		make_single(s, p, why, now_ms);
		return;
	}
	log_debug("%s: %s", swarm_name(p), why);
	p->single = true;
	snprintf(s->trouble, sizeof s->trouble, "%s: %s", swarm_name(p), why);
	s->unreachable = p->connection.connecting || !has_connection(p);
	swarm_disconnect(s, p, now_ms);
	choice_forget(&s->choice, &p->holding, p->address);
	rest(p, doubled(REST_MS, p->failures, REST_MAX_MS), now_ms);
	p->failures++;
}

void swarm_lacks_file(struct swarm *s, struct peer *p, int64_t now_ms)
{
	p = peer_of(s, p);
	swarm_fail(s, p, "doesn't have the file", now_ms);
	rest(p, NO_FILE_REST_MS, now_ms);
}

void swarm_ban(struct swarm *s, struct peer *p, const char *why, int64_t now_ms)
{
	p = peer_of(s, p);
	if (!p->banned)
		log_warnx("%s: %s; it is not asked again", swarm_name(p), why);
	p->banned = true;
	swarm_disconnect(s, p, now_ms);
	choice_forget(&s->choice, &p->holding, p->address);
}

void swarm_cannot_parse(struct swarm *s, struct peer *p, int64_t now_ms)
{
	if (p->twin) {
		make_single(s, p, "can't parse a request", now_ms);
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
	p->rate = connection_rate(&p->connection, now_ms);
}

void swarm_chunk_begins(struct peer *p)
{
	p->refusals = 0;
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
	p = peer_of(s, p);
	choice_refused(&s->choice, &p->holding, chunk, held);
	p->tells = held != NULL;
	p->refusals++;
	if (held == NULL && p->refusals % PROBES == 0)
		rest(p, doubled(REFUSED_REST_MS, p->refusals / PROBES - 1, SILENT_REST_MAX_MS), now_ms);
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
	struct peer *known = peer_of(s, p);

	if (known != p)
		p->chunks += chunks;	/* for window_alone; it isn't told of */
	p = known;
	p->chunks += chunks;
	p->proven = true;
	p->failures = 0;
}

void swarm_chunk_wasted(struct swarm *s, uint64_t chunk, uint64_t bytes)
{
	choice_give_back(&s->choice, chunk);
	s->wasted += bytes;
}

void swarm_excuse(struct swarm *s, int64_t ms, int64_t now_ms)
{
	for (size_t i = 0; i < s->count; i++)
		connection_excuse(&s->peers[i].connection, ms, now_ms);
}

/* ---- who is known ------------------------------------------------------------ */

/* How well the table could do without the peer; 0: it is to stay. A banned one
 * goes last: should it come back, it has a chunk to waste. */
static unsigned badness(const struct peer *p)
{
	return p->banned ? 1 : p->failures > 0 ? 2 * p->failures : p->refusals >= REFUSALS_MAX;
}

/* Room for one more peer, if need be at the cost of the one that failed most.
 * NULL: there is none. */
static struct peer *find_room(struct swarm *s)
{
	struct peer *worst = NULL;

	if (s->count < PEERS_MAX)
		return &s->peers[s->count++];
	for (size_t i = 0; i < s->count; i++) {
		struct peer *p = &s->peers[i];
		if (!has_connection(p) && p->unchecked == 0 && !p->direct && badness(p) > 0 &&
		    (worst == NULL || badness(p) > badness(worst)))
			worst = p;
	}
	return worst;
}

/* A peer of which nothing is known is there now. */
static void take_place(struct swarm *s, struct peer *p, struct address a)
{
	choice_forget(&s->choice, &p->holding, p->address);
	*p = (struct peer){.address = a, .connection.fd = -1};
}

/* Adds a peer at that address, which is not known. NULL: there is no room. */
static struct peer *add_peer(struct swarm *s, struct address a)
{
	struct peer *p = find_room(s);

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
		struct peer *known = find_peer(s, entry->address), *p = known;
		if (!is_usable(s, entry->address) || (p == NULL && (p = add_peer(s, entry->address)) == NULL))
			continue;
		*news = *news || known == NULL;
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
		if (!p->banned && p->failures == 0 && p->refusals < REFUSALS_MAX)
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

	*s = (struct swarm){.options = *options, .length = length, .chunk_size = chunk_size,
		.cascade_hash = cascade_hash, .connected_max = SWARM_CONNECTED_MAX};
	s->peers = calloc(PEERS_MAX, sizeof s->peers[0]);
	if (s->peers == NULL || choice_begin(&s->choice, (length - 1) / chunk_size + 1, options->self, order) < 0) {
		free(s->peers);
		return -1;
	}
	for (size_t i = 0; i < options->peer_count; i++) {
		struct peer *p = find_peer(s, options->peers[i]);
		if (p != NULL || (p = add_peer(s, options->peers[i])) != NULL)
			p->direct = true;
	}
	return 0;
}

void swarm_end(struct swarm *s, int64_t now_ms)
{
	for (size_t i = 0; i < s->count; i++)
		swarm_disconnect(s, &s->peers[i], now_ms);
	choice_end(&s->choice);
	free(s->peers);
}

/* ---- how much of whom -------------------------------------------------------- */

/* Counts those among whom the file is shared out, beside us. */
static size_t share_out(struct swarm *s)
{
	size_t count = 0;

	for (size_t i = 0; i < s->count; i++) {
		struct peer *p = &s->peers[i];
		bool fetches = p->holding.partial && !p->banned && p->failures == 0;
		choice_share(&s->choice, &p->holding, p->address, fetches && p->tells);
		count += fetches;
	}
	return count;
}

static double clamp(double value, double least, double most)
{
	return value < least ? least : value > most ? most : value;
}

/* How many chunks a peer may be asked for ahead of what it sends, if nobody shares: what
 * it delivers in a second, or in some round trips. */
static uint64_t window_alone(const struct swarm *s, const struct peer *p)
{
	double round_trips = p->rate * ROUND_TRIPS * (double)p->connection.round_trip_ms / 1000;
	double most = clamp(round_trips, WINDOW_NEAR, WINDOW_MAX);
	uint64_t chunks = (uint64_t)clamp(p->rate, WINDOW_FIRST, most) / s->chunk_size;

	if (chunks < 2)
		chunks = 2;
	/* A peer that serves begins slowly: others may have begun just now, and are not known yet. */
	return s->options.serves && chunks > p->chunks ? p->chunks : chunks;
}

/* Chunks that come in AHEAD_MS at that rate. */
static uint64_t ahead(const struct swarm *s, double rate)
{
	return (uint64_t)(rate * AHEAD_MS / 1000) / s->chunk_size;
}

/* What the peers that hold parts may be asked for together, beyond what they were asked
 * for, and what they deliver. Who is late counts for nothing: it would keep us from
 * asking others. */
static uint64_t budget_left(const struct swarm *s, double *rate, int64_t now_ms)
{
	uint64_t asked = 0, budget;

	*rate = 0;
	for (size_t i = 0; i < s->count; i++) {
		const struct peer *p = &s->peers[i];
		if (!p->holding.partial || p->connection.asked_count == 0)
			continue;
		*rate += connection_rate(&p->connection, now_ms);
		if (now_ms - p->connection.heard_ms < scaled(s, SLOW_MS))
			asked += p->connection.asked_count;
	}
	budget = AHEAD_CHUNKS + ahead(s, *rate);
	return asked < budget ? budget - asked : 0;
}

/* How many more chunks the peer may be asked for. Until it has shown that it delivers,
 * one: a liar's chunks are wasted. */
static uint64_t window_left(const struct swarm *s, const struct peer *p, bool others_share, uint64_t part)
{
	uint64_t asked = p->connection.asked_count, chunks;

	if (p->leaves)
		return 0;
	if (!p->proven && p->refusals == 0)
		return asked + p->unchecked == 0;
	if (p->one_at_a_time || p->closings > 0)
		return asked == 0;
	chunks = p->holding.partial || others_share ? 1 + ahead(s, p->rate) : window_alone(s, p);
	/* Nobody is asked for more than its part of what is left: at the end, those who turn
	 * out to be slow hold little. */
	if (chunks > part)
		chunks = part;
	return asked < chunks ? chunks - asked : 0;
}

/* Whether a peer that seems to hold everything is to be asked only for what nobody else
 * fetches from it: while the others, together, deliver faster than it does, it has more
 * to do than they. After a while it is tried again: it may have less to do by now. */
static bool is_left_in_peace(const struct swarm *s, const struct peer *p, double others_rate, int64_t now_ms)
{
	return !p->holding.partial && p->answer_ms > 0 &&
	       others_rate * (double)p->answer_ms > (double)s->chunk_size * 1000 &&
	       now_ms - p->connection.heard_ms < PEACE * p->answer_ms;
}

/* Asks for up to that many chunks. Returns how many it asked for. */
static uint64_t ask_for_chunks(struct swarm *s, struct peer *p, uint64_t left, bool only_ours, int64_t now_ms)
{
	struct connection *c = &p->connection;
	uint64_t chunk, asked = 0;

	/* Many requests in one go, rather than one for each chunk that came. */
	if (c->asked_count > 0 && left < c->asked_count / 2 && c->out_used == 0)
		return 0;
	for (;;) {
		while (asked < left && connection_can_ask(c) && choice_find(&s->choice, &p->holding, only_ours, &chunk)) {
			choice_take(&s->choice, chunk);
			connection_ask(c, chunk, s->cascade_hash, now_ms);
			asked++;
		}
		if (c->out_used == 0)
			return asked;
		int error = connection_send(c);
		if (error != 0) {
			swarm_fail(s, p, strerror(error), now_ms);
			return 0;
		}
		if (c->out_used > 0)
			return asked;	/* the socket is full: poll tells when it isn't */
	}
}

/* A peer that has nothing for us may have something after a rest. Then it is asked for
 * what it isn't known to have, and tells what it has. */
static void rest_refused(struct peer *p, int64_t now_ms)
{
	rest(p, doubled(REFUSED_REST_MS, p->refusals, REFUSED_REST_MAX_MS), now_ms);
}

/* Who seems to hold everything comes before who holds parts, and who answered sooner of
 * late before who took longer: it has less to do. */
static int compare_in_turn(const void *a, const void *b)
{
	const struct peer *p = *(struct peer *const *)a, *q = *(struct peer *const *)b;

	if (p->holding.partial != q->holding.partial)
		return p->holding.partial ? 1 : -1;
	if (p->answer_ms != q->answer_ms)
		return p->answer_ms < q->answer_ms ? -1 : 1;
	return p->turn < q->turn ? -1 : p->turn > q->turn;
}

/* Puts those that may be asked into the order in which they are. Among equals that is
 * another one each time. Returns how many they are. */
static size_t put_in_turn(struct swarm *s, struct peer *in_turn[PEERS_MAX], int64_t now_ms)
{
	size_t count = 0, first = s->turn++;

	for (size_t i = 0; i < s->count; i++) {
		struct peer *p = &s->peers[(first + i) % s->count];
		if (!has_connection(p) || p->connection.connecting || p->rest_until_ms > now_ms)
			continue;
		p->turn = count;
		in_turn[count++] = p;
	}
	qsort(in_turn, count, sizeof in_turn[0], compare_in_turn);
	return count;
}

static size_t count_connections(const struct swarm *s)
{
	size_t count = 0;

	for (size_t i = 0; i < s->count; i++)
		count += has_connection(&s->peers[i]);
	return count;
}

static void ask_all(struct swarm *s, int64_t now_ms)
{
	double others_rate;
	bool others_share = share_out(s) > 0;
	uint64_t budget = budget_left(s, &others_rate, now_ms);
	size_t connected = count_connections(s);
	uint64_t part = s->choice.wanted.count / (connected > 0 ? connected : 1) + 1;
	struct peer *in_turn[PEERS_MAX];
	size_t count = put_in_turn(s, in_turn, now_ms);

	for (size_t i = 0; i < count; i++) {
		struct peer *p = in_turn[i];
		bool partial = p->holding.partial;
		if (p->rests)
			choice_forget_lacks(&p->holding);
		p->rests = false;
		uint64_t left = window_left(s, p, others_share, part);
		if (partial && left > budget)
			left = budget;
		uint64_t asked = ask_for_chunks(s, p, left, is_left_in_peace(s, p, others_rate, now_ms), now_ms);
		if (partial)
			budget -= asked;
		if (partial && left > 0 && p->connection.asked_count == 0 && s->choice.wanted.count > 0 && has_connection(p))
			rest_refused(p, now_ms);
	}
}

/* ---- connecting ---------------------------------------------------------------- */

/* Whether more is to be hoped for from p than from q: first by what was seen of
 * them, then by what the tracker says. */
static bool is_better(const struct peer *p, const struct peer *q)
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

/* Whether somebody is connected to, or about to be, who has something for us, and is
 * quicker than that slow peer, or of unknown speed. */
static bool has_quicker_peer(const struct swarm *s, const struct peer *slow)
{
	for (size_t i = 0; i < s->count; i++) {
		const struct peer *p = &s->peers[i];
		if (has_connection(p) && p->refusals == 0 && (p->rate > slow->rate || (p->rate == 0 && !p->slow)))
			return true;
	}
	return false;
}

/* The best of the peers that may be connected to; among equals, any. A slow one is better
 * than none. */
static struct peer *choose_peer(struct swarm *s, int64_t now_ms)
{
	struct peer *best = NULL;
	size_t start = s->count > 0 ? (size_t)random() % s->count : 0;

	for (size_t i = 0; i < s->count; i++) {
		struct peer *p = &s->peers[(start + i) % s->count];
		bool may_be = !has_connection(p) && !p->banned && p->rest_until_ms <= now_ms &&
			      (p->proven || p->unchecked == 0) && !(p->slow && has_quicker_peer(s, p));
		if (may_be && (best == NULL || is_better(p, best)))
			best = p;
	}
	return best;
}

size_t swarm_connected(const struct swarm *s)
{
	size_t connected = 0;

	for (size_t i = 0; i < s->count; i++)
		connected += has_connection(&s->peers[i]) && !s->peers[i].twin;
	return connected;
}

/* Every peer that may have something for us is connected to, as far as there is room:
 * then one that delivers drop by drop keeps nobody else from being asked. */
static void connect_to_all(struct swarm *s, int64_t now_ms)
{
	size_t connected = count_connections(s);
	struct peer *p;

	while (s->choice.wanted.count > 0 && connected < s->connected_max && (p = choose_peer(s, now_ms)) != NULL)
		if (connection_open(&p->connection, p->address, now_ms) < 0)
			swarm_fail(s, p, strerror(errno), now_ms);
		else
			connected++;
}

void swarm_connecting_ended(struct swarm *s, struct peer *p, int64_t now_ms)
{
	int error = connection_made(&p->connection, now_ms);

	if (error != 0)
		swarm_fail(s, p, strerror(error), now_ms);
	else
		log_debug("%s: connected", swarm_name(p));
}

/* ---- several connections to one peer ---------------------------------------------- */

/* Whether no other peer is connected to. */
static bool is_alone(const struct swarm *s, const struct peer *p)
{
	for (size_t i = 0; i < s->count; i++) {
		const struct peer *q = &s->peers[i];
		if (q != p && !q->twin && has_connection(q) && !q->connection.connecting)
			return false;
	}
	return true;
}

/* Whether the peer may have twins, if they gain something. */
static bool may_have_twins(const struct swarm *s, const struct peer *p)
{
	return !p->single && p->proven && !p->slow && !p->holding.partial && !p->one_at_a_time && p->closings == 0 &&
	       is_alone(s, p);
}

/* Whether the line to the peer is long, and carries as much in a round trip as a kernel lends
 * to one connection, or soon will. */
static bool would_gain(const struct swarm *s, const struct peer *p)
{
	const struct connection *c = &p->connection;
	uint64_t carries = connection_carries(c);

	return !c->connecting && count_connections(s) + TWINS_MAX <= s->connected_max &&
	       c->round_trip_ms >= TWINS_ROUND_TRIP_MS && carries >= TWINS_BYTES &&
	       s->choice.wanted.count > 1 && s->choice.wanted.count >= TWINS_WANTED * carries / s->chunk_size;
}

/* Counts the peer's twins; their rates and its own are added up. */
static size_t count_twins(const struct swarm *s, const struct peer *p, double *rate, int64_t now_ms)
{
	size_t count = 0;

	*rate = connection_rate(&p->connection, now_ms);
	for (size_t i = 0; i < s->count; i++)
		if (is_twin_of(&s->peers[i], p)) {
			*rate += connection_rate(&s->peers[i].connection, now_ms);
			count++;
		}
	return count;
}

/* A place of a twin that is gone, or any. NULL: there is no room. */
static struct peer *find_room_for_twin(struct swarm *s)
{
	for (size_t i = 0; i < s->count; i++) {
		struct peer *p = &s->peers[i];
		if (p->twin && !has_connection(p) && p->unchecked == 0)
			return p;
	}
	return find_room(s);
}

static void connect_twins(struct swarm *s, struct peer *p, int64_t now_ms)
{
	const struct connection *c = &p->connection;

	log_debug("%s: is asked over more than one connection", swarm_name(p));
	p->twins_since_ms = now_ms;
	p->alone_rate = (double)connection_carries(c) * 1000 / (double)c->round_trip_ms;
	for (int i = 0; i < TWINS_MAX && !p->single; i++) {
		struct peer *twin = find_room_for_twin(s);
		if (twin == NULL)
			return;
		take_place(s, twin, p->address);
		twin->twin = twin->proven = true;
		if (connection_open(&twin->connection, twin->address, now_ms) < 0) {
			twin->banned = true;
			make_single(s, twin, strerror(errno), now_ms);
		}
	}
}

/* They still send what they were asked for, and are disconnected then. */
static void dismiss_twins(struct swarm *s, const struct peer *p)
{
	for (size_t i = 0; i < s->count; i++) {
		struct peer *twin = &s->peers[i];
		if (is_twin_of(twin, p))
			twin->leaves = true;
	}
}

static void manage_twins(struct swarm *s, int64_t now_ms)
{
	for (size_t i = 0; i < s->count; i++) {
		struct peer *p = &s->peers[i];
		double rate;
		if (p->leaves && p->connection.asked_count == 0)
			disconnect(s, p, now_ms);
		if (p->twin || !has_connection(p))
			continue;
		size_t twins = count_twins(s, p, &rate, now_ms);
		if (twins > 0 && now_ms - p->twins_since_ms >= TWINS_TRIAL_MS && s->choice.wanted.count > 0 &&
		    rate < TWINS_GAIN * p->alone_rate)
			p->single = true;
		if (!may_have_twins(s, p))
			dismiss_twins(s, p);
		else if (twins == 0 && would_gain(s, p))
			connect_twins(s, p, now_ms);
	}
}

/* ---- what takes too long --------------------------------------------------------- */

/* How long the peer needs for all that it was asked for at its present rate, in seconds.
 * A byte now and then is a rate like any other: it takes very long. */
static double seconds_left(const struct swarm *s, const struct peer *p, int64_t now_ms)
{
	const struct connection *c = &p->connection;
	bool stalls = now_ms - c->heard_ms >= scaled(s, SLOW_MS);
	double rate = stalls ? 0 : connection_rate(c, now_ms);
	double came = connection_missing_of_chunk(c) > 0 ? (double)c->body_got : 0;

	return rate > 0 ? ((double)c->asked_count * (double)s->chunk_size - came) / rate : 1e9;
}

/* What the peer was asked for is wanted again; it is not asked while there is another. */
static void leave_slow(struct swarm *s, struct peer *p, int64_t now_ms)
{
	p->slow = true;
	swarm_fail(s, p, "too slow for the rest", now_ms);
}

/* Whether the peer has nothing to do, and can be asked for a chunk that another has. One
 * that has refused a chunk since it last had one may do so again; one that has no
 * connection must have delivered something. */
static bool can_take_over(const struct swarm *s, const struct peer *p, uint64_t chunk, int64_t now_ms)
{
	size_t region = wanted_region(&s->choice.wanted, chunk);

	return (has_connection(p) || p->rate > 0) && !p->connection.connecting && !p->banned &&
	       p->connection.asked_count == 0 && p->unchecked == 0 && p->rest_until_ms <= now_ms &&
	       choice_may_have(&s->choice, &p->holding, chunk) &&
	       (p->refusals == 0 || region_set_has(&p->holding.has, region));
}

/* The best idle peer that can take over the chunk; NULL: there is none. */
static struct peer *find_idle(const struct swarm *s, uint64_t chunk, int64_t now_ms)
{
	struct peer *idle = NULL;

	for (size_t i = 0; i < s->count; i++) {
		struct peer *p = &s->peers[i];
		if (can_take_over(s, p, chunk, now_ms) && (idle == NULL || is_better(p, idle)))
			idle = p;
	}
	return idle;
}

/* Whether the peer is so slow that any other is worth trying for what it was asked for, even
 * one that isn't known to have it. */
static bool is_hopeless(const struct swarm *s, const struct peer *p, int64_t now_ms)
{
	const struct connection *c = &p->connection;

	return s->count > 1 && now_ms - c->due_ms >= scaled(s, SILENCE_MS) &&
	       connection_rate(c, now_ms) < HOPELESS_RATE && seconds_left(s, p, now_ms) > HOPELESS_S;
}

/* When all chunks that are left have been asked for, takes from slow peers what an idle
 * one would deliver much sooner. */
static void take_from_slow(struct swarm *s, int64_t now_ms)
{
	if (s->choice.wanted.count > 0)
		return;
	for (size_t i = 0; i < s->count; i++) {
		struct peer *p = &s->peers[i];
		const struct connection *c = &p->connection;
		if (c->asked_count == 0 || now_ms - c->due_ms < scaled(s, SLOW_MS))
			continue;
		const struct peer *idle = find_idle(s, connection_awaited(c), now_ms);
		double rate = idle == NULL || idle->rate <= 0 ? WINDOW_FIRST : idle->rate;
		double by_idle = (double)c->asked_count * (double)s->chunk_size / rate;
		if ((idle != NULL && seconds_left(s, p, now_ms) > 1 + 2 * by_idle) || is_hopeless(s, p, now_ms))
			leave_slow(s, p, now_ms);
	}
}

/* Whether somebody who has nothing to do is known to have the chunk. */
static bool has_idle_holder(const struct swarm *s, uint64_t chunk)
{
	size_t region = wanted_region(&s->choice.wanted, chunk);

	for (size_t i = 0; i < s->count; i++) {
		const struct peer *p = &s->peers[i];
		if (has_connection(p) && p->connection.asked_count == 0 && p->unchecked == 0 &&
		    region_set_has(&p->holding.has, region) && !region_set_has(&p->holding.lacks, region))
			return true;
	}
	return false;
}

/* What waits at a busy peer is asked of somebody else, if somebody is known to have it.
 * The protocol has no way to take a request back but to hang up. */
static void leave_queues(struct swarm *s, int64_t now_ms)
{
	for (size_t i = 0; i < s->count; i++) {
		struct peer *p = &s->peers[i];
		const struct connection *c = &p->connection;
		if (c->asked_count == 0 || now_ms - c->due_ms < scaled(s, QUEUE_MS) || c->body_got > QUEUE_BYTES ||
		    !has_idle_holder(s, connection_awaited(c)))
			continue;
		log_debug("%s: makes us wait", swarm_name(p));
		swarm_disconnect(s, p, now_ms);
		rest(p, REST_MS, now_ms);
	}
}

static int connect_limit(const struct swarm *s, const struct peer *p)
{
	return scaled(s, p->twin ? TWIN_SILENCE_MS : CONNECT_MS);
}

static int silence_limit(const struct swarm *s, const struct peer *p)
{
	return scaled(s, p->twin ? TWIN_SILENCE_MS : SILENCE_MS);
}

static void end_what_takes_too_long(struct swarm *s, int64_t now_ms)
{
	for (size_t i = 0; i < s->count; i++) {
		struct peer *p = &s->peers[i];
		struct connection *c = &p->connection;
		int64_t silent = now_ms - c->heard_ms;
		if (!has_connection(p))
			continue;
		if (c->connecting && silent >= connect_limit(s, p))
			swarm_fail(s, p, "can't be connected to in time", now_ms);
		else if (c->asked_count > 0 && silent >= silence_limit(s, p))
			swarm_fail(s, p, "has been silent for too long", now_ms);
		else if (silent >= PATIENCE_MS)
			connection_wake_at(c, 1);
	}
}

void swarm_manage(struct swarm *s, int64_t now_ms)
{
	end_what_takes_too_long(s, now_ms);
	take_from_slow(s, now_ms);
	leave_queues(s, now_ms);
	manage_twins(s, now_ms);
	ask_all(s, now_ms);
	connect_to_all(s, now_ms);
}

/* When the peer's silence will be looked at next. */
static int64_t next_look_ms(const struct swarm *s, const struct peer *p, int64_t now_ms)
{
	const struct connection *c = &p->connection;

	if (c->connecting)
		return c->heard_ms + connect_limit(s, p);
	if (c->wake_bytes > 1)
		return c->heard_ms + PATIENCE_MS;
	if (s->choice.wanted.count == 0)
		return now_ms + LOOK_MS;
	if (now_ms - c->due_ms < scaled(s, QUEUE_MS))
		return c->due_ms + scaled(s, QUEUE_MS);
	return c->heard_ms + silence_limit(s, p);
}

int64_t swarm_next_event_ms(const struct swarm *s, int64_t now_ms, int64_t next_ms)
{
	for (size_t i = 0; i < s->count; i++) {
		const struct peer *p = &s->peers[i];
		if (p->connection.connecting || p->connection.asked_count > 0)
			next_ms = clock_earlier(next_ms, next_look_ms(s, p, now_ms));
		if (!p->banned && p->rest_until_ms > now_ms)
			next_ms = clock_earlier(next_ms, p->rest_until_ms);
	}
	return next_ms;
}

bool swarm_is_idle(const struct swarm *s)
{
	for (size_t i = 0; i < s->count; i++)
		if (s->peers[i].connection.connecting || s->peers[i].connection.asked_count > 0)
			return false;
	return true;
}
