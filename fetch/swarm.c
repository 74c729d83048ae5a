/* swarm.c - what is known of peers, and the choice among them; used by the
 * fetcher. */
#include "fetch/swarm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

/* Every wait has a limit; --timeout scales them. */
#define CONNECT_MS 5000		/* a SYN and two more of them get lost, and still it connects */
#define SILENCE_MS 10000	/* without a byte while something is asked for */
#define STALL_MS 2000		/* the same, while others deliver */
#define SLOW_MS 1000		/* a response may take, before its peer can be found too slow */
#define LOOK_MS 250		/* between two looks at who is slow, when all is asked for */
#define PATIENCE_MS 500		/* of ours, for many bytes at a time; then any are enough */

#define REST_MS 1000		/* after a failure; twice as long after each more, up to */
#define REST_MAX_MS 60000
#define NO_FILE_REST_MS 60000	/* for a peer that doesn't have the file */
#define REFUSED_REST_MS 50	/* after so many times "not yet" that nothing can be hoped for; */
#define REFUSED_REST_MAX_MS 5000	/* twice as long after each more, up to this */

#define PEERS_MAX 192		/* known at a time */
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

/* Where others share: so many parts of a second. What is asked of one can't be had
 * from another, and what is where changes fast. */
#define AHEAD_OF_PARTIAL 4
#define AHEAD_OF_FULL 8

/* A peer that says "not yet" so many times rests; twice as many after each rest. */
#define PROBES 4u
#define PROBES_MAX 64u
#define REFUSALS_MAX 64		/* in a row: it is of no use now */
#define MISSES_MAX 8		/* in its order, in a row: then only one chunk in so many is asked in it */

static int scaled(const struct swarm *s, int ms)
{
	return (int)(ms * s->options->time_scale);
}

static uint64_t random_below(uint64_t n)
{
	return (((uint64_t)random() << 31) ^ (uint64_t)random()) % n;
}

static bool is_connected(const struct peer *p)
{
	return p->fd >= 0;
}

/* ---- which chunk ----------------------------------------------------------- */

/* What is known of which chunks a peer holds is known of regions: each is one
 * chunk, or as many as make SHARES_REGIONS of them cover the file. */
static uint64_t region_size(const struct swarm *s)
{
	return (s->meta->chunks - 1) / SHARES_REGIONS + 1;
}

static size_t region_count(const struct swarm *s)
{
	return (size_t)((s->meta->chunks - 1) / region_size(s) + 1);
}

static bool lacks_region(const struct peer *p, uint64_t region)
{
	return p->lacks[region / 8] >> region % 8 & 1;
}

/* Peers that have refused a chunk hold parts of the file, as we do. */
static bool is_like_us(const struct peer *p)
{
	return p->partial && !p->banned && p->failures == 0;
}

/* Whether others fetch from us, and expect the order that follows from our address. */
static bool is_shared_with(const struct swarm *s)
{
	return s->options->news >= 0 && s->options->self.ip != 0 && !s->options->ascending;
}

/* Shares the file out among us and those like us. */
static void share_out(struct swarm *s)
{
	struct address sharers[PEERS_MAX + 1];
	size_t count = 0;

	if (is_shared_with(s))
		sharers[count++] = s->options->self;
	for (size_t i = 0; i < s->count; i++)
		if (is_like_us(&s->peers[i]))
			sharers[count++] = s->peers[i].address;
	if (shares_digest(sharers, count) == s->shares.digest)
		return;
	shares_work_out(&s->shares, sharers, count, region_count(s));
	if (is_shared_with(s))
		shares_order(&s->shares, s->options->self, &s->order);
}

/* The first wanted chunk, not before that one, of a region that the peer isn't
 * known to lack. False: there is none. */
static bool find_in_region(const struct swarm *s, const struct peer *p, size_t region, uint64_t from,
			   uint64_t *wanted)
{
	uint64_t size = region_size(s), first = region * size, end = first + size;

	if (end > s->meta->chunks)
		end = s->meta->chunks;
	if (from < first)
		from = first;
	return !lacks_region(p, region) && (*wanted = wanted_next(&s->wanted, from, end)) < end;
}

/* The same, of the first region in that order that has any, and to which its
 * owner stands so well. */
static bool find_in_order(const struct swarm *s, const struct peer *p, struct order *order,
			  struct address whose, enum standing worst, uint64_t *wanted)
{
	if (order->given_back != s->wanted.given_back) {
		order->given_back = s->wanted.given_back;
		order->place = 0;
		order->chunk = 0;
	}
	for (; order->place < s->shares.regions; order->place++, order->chunk = 0) {
		size_t region = order->region[order->place];
		if (shares_standing(&s->shares, whose, region) > worst)
			return false;
		if (find_in_region(s, p, region, order->chunk, wanted)) {
			order->chunk = *wanted;
			return true;
		}
	}
	return false;
}

/* The same, from p->next on, or anywhere in a region after that: a region's first
 * chunks may be just those that the peer lacks. */
static bool find_anywhere(const struct swarm *s, const struct peer *p, uint64_t *wanted)
{
	uint64_t size = region_size(s), from = p->next, skipped = random_below(size);
	size_t regions = s->shares.regions, first = (size_t)(from / size) % regions;

	for (size_t i = 0; i <= regions; i++) {
		size_t region = (first + i) % regions;
		if (find_in_region(s, p, region, from, wanted) || find_in_region(s, p, region, 0, wanted))
			return true;
		from = (region + 1) % regions * size + skipped;
	}
	return false;
}

/* Whether those like us are delivering, together, as much as the peer does. */
static bool others_do_as_well(const struct swarm *s, const struct peer *p)
{
	int64_t now = clock_ms();
	double rate = 0;

	for (size_t i = 0; i < s->count; i++) {
		const struct peer *other = &s->peers[i];
		if (is_like_us(other) && other->asked_count > 0 && now - other->heard_ms < scaled(s, STALL_MS))
			rate += peer_rate_now(other);
	}
	return p->rate > 0 && rate >= p->rate;
}

/* Finds a chunk to ask the peer for. One that seems to hold everything is asked in
 * our order, and left in peace with what is neither our share nor next to it while
 * others do as well. One that holds parts is asked in its own order, as long as it
 * seems to have one. False: there is none. */
static bool find_for(struct swarm *s, struct peer *p, uint64_t *wanted)
{
	if (!p->partial)
		return find_in_order(s, p, &s->order, s->options->self, others_do_as_well(s, p) ? ITS_NEXT : NOT_ITS,
				     wanted);
	p->anywhere = p->probes >= PROBES / 2 || (p->misses >= MISSES_MAX && p->streak % MISSES_MAX != MISSES_MAX - 1);
	if (p->anywhere)
		return find_anywhere(s, p, wanted);
	if (p->order.digest != s->shares.digest)
		shares_order(&s->shares, p->address, &p->order);
	return find_in_order(s, p, &p->order, p->address, NOT_ITS, wanted);
}

/* ---- what becomes of a peer ------------------------------------------------ */

const char *swarm_name(const struct peer *p)
{
	static char text[ADDRESS_TEXT_SIZE];

	return address_text(p->address, text);
}

void swarm_disconnect(struct swarm *s, struct peer *p)
{
	if (p->asked_count > 0 && p->header_got == PEER_RESPONSE_SIZE && p->response.status == PEER_OK)
		s->wasted += p->body_got;
	while (p->asked_count > 0) {
		wanted_give_back(&s->wanted, peer_awaited(p));
		peer_forget_awaited(p);
	}
	peer_disconnect(p);
}

static void rest(struct peer *p, int64_t ms)
{
	p->rest_until_ms = clock_ms() + ms;
}

/* The peer has nothing that is wanted, now; after a rest it may. */
static void rest_refused(struct peer *p)
{
	int64_t ms = REFUSED_REST_MS << (p->rests < 7 ? p->rests : 7);

	p->rests++;
	p->probes = 0;
	memset(p->lacks, 0, sizeof p->lacks);
	p->order.place = 0;
	p->order.chunk = 0;
	rest(p, clock_jittered(ms < REFUSED_REST_MAX_MS ? ms : REFUSED_REST_MAX_MS));
}

void swarm_fail(struct swarm *s, struct peer *p, const char *why)
{
	unsigned doublings = p->failures < 6 ? p->failures : 6;
	int64_t ms = REST_MS << doublings;

	log_debug("%s: %s", swarm_name(p), why);
	snprintf(s->trouble, sizeof s->trouble, "%s: %s", swarm_name(p), why);
	s->unreachable = p->connecting || !is_connected(p);
	swarm_disconnect(s, p);
	p->failures++;
	rest(p, clock_jittered(ms < REST_MAX_MS ? ms : REST_MAX_MS));
}

void swarm_lacks_file(struct swarm *s, struct peer *p)
{
	swarm_fail(s, p, "doesn't have the file");
	rest(p, clock_jittered(NO_FILE_REST_MS));
}

void swarm_ban(struct swarm *s, struct peer *p, const char *why)
{
	log_warnx("%s: %s; it is not asked again", swarm_name(p), why);
	swarm_disconnect(s, p);
	p->banned = true;
}

/* Remembers that the peer lacks the chunk, and looks elsewhere for what it may
 * have; if it seems to have nothing, later. */
void swarm_lacks_chunk(struct swarm *s, struct peer *p, uint64_t chunk)
{
	uint64_t region = chunk / region_size(s);

	log_debug("%s: doesn't have chunk %llu yet", swarm_name(p), (unsigned long long)chunk);
	p->partial = true;
	p->lacks[region / 8] |= (uint8_t)(1u << region % 8);
	p->next = random_below(s->meta->chunks);
	p->misses += !p->anywhere;
	p->streak = 0;
	p->refusals++;
	if (++p->probes >= (p->rests < 4 && p->misses < MISSES_MAX ? PROBES << p->rests : PROBES_MAX))
		rest_refused(p);
}

void swarm_has_chunk(struct peer *p)
{
	if (!p->anywhere)
		p->misses = 0;
	p->streak++;
	p->refusals = p->probes = p->rests = 0;
}

void swarm_delivered(struct swarm *s, struct peer *p, uint64_t chunks)
{
	p->chunks += chunks;
	p->proven = true;
	p->failures = 0;
	s->good_ms = clock_ms();
}

/* ---- who is known ------------------------------------------------------------ */

static struct peer *find_peer(const struct swarm *s, struct address a)
{
	for (size_t i = 0; i < s->count; i++)
		if (s->peers[i].address.ip == a.ip && s->peers[i].address.port == a.port)
			return &s->peers[i];
	return NULL;
}

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
		if (!is_connected(p) && p->unchecked == 0 && !p->direct && badness(p) > 0 &&
		    (worst == NULL || badness(p) > badness(worst)))
			worst = p;
	}
	return worst;
}

/* The peer at that address, known before or from now on; NULL: there is no room. */
static struct peer *add_peer(struct swarm *s, struct address a)
{
	struct peer *p = find_peer(s, a);

	if (p == NULL && (p = find_room(s)) != NULL) {
		memset(p, 0, sizeof *p);
		p->address = a;
		p->fd = -1;
	}
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
	const struct address self = s->options->self;

	return a.port != 0 && a.ip >> 24 != 0 && a.ip >> 28 < 14 &&
	       (a.ip != self.ip || a.port != self.port) &&
	       (!is_loopback(a.ip) || is_loopback(self.ip) || self.ip == 0);
}

unsigned swarm_add_entries(struct swarm *s, const struct tracker_entry entries[], size_t count)
{
	uint32_t latest = 0;	/* by the tracker's clock, which may not be ours */
	unsigned usable = 0;

	for (size_t i = 0; i < count; i++)
		if (entries[i].last_seen > latest)
			latest = entries[i].last_seen;
	for (size_t i = 0; i < count; i++) {
		const struct tracker_entry *entry = &entries[i];
		struct peer *p = is_usable(s, entry->address) ? add_peer(s, entry->address) : NULL;
		if (p == NULL)
			continue;
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

int swarm_begin(struct swarm *s, const struct metafile *m, const struct held *held,
		const struct fetch_options *options)
{
	*s = (struct swarm){.meta = m, .options = options, .good_ms = clock_ms()};
	s->peers = calloc(PEERS_MAX, sizeof s->peers[0]);
	if (s->peers == NULL || wanted_init(&s->wanted, m->chunks) < 0) {
		free(s->peers);
		return -1;
	}
	for (uint64_t chunk = 0; chunk < m->chunks; chunk++)
		if (held_has(held, chunk))
			wanted_take(&s->wanted, chunk);
	shares_work_out(&s->shares, NULL, 0, region_count(s));
	size_t from = options->ascending ? 0 : (size_t)random_below(s->shares.regions);
	shares_file_order(&s->shares, from, &s->order);
	for (size_t i = 0; i < options->peer_count; i++) {
		struct peer *p = add_peer(s, options->peers[i]);
		if (p != NULL)
			p->direct = true;
	}
	return 0;
}

void swarm_end(struct swarm *s)
{
	for (size_t i = 0; i < s->count; i++)
		swarm_disconnect(s, &s->peers[i]);
	wanted_free(&s->wanted);
	free(s->peers);
}

/* ---- asking ------------------------------------------------------------------ */

/* How many chunks the peer may be asked for ahead of what it sends. */
static uint64_t window(const struct swarm *s, const struct peer *p)
{
	double rate = p->rate, far = rate * ROUND_TRIPS * (double)p->round_trip_ms / 1000;
	double most = far < WINDOW_NEAR ? WINDOW_NEAR : far > WINDOW_MAX ? WINDOW_MAX : far;
	double bytes = rate < WINDOW_FIRST ? WINDOW_FIRST : rate > most ? most : rate;
	uint64_t chunk_size = s->meta->chunk_size, chunks;

	if (p->partial) {
		chunks = 1 + (uint64_t)(rate / AHEAD_OF_PARTIAL) / chunk_size;
		return chunks < 2 * (p->streak + 1) ? chunks : 2 * (p->streak + 1);
	}
	if (others_do_as_well(s, p))
		return 1 + (uint64_t)(rate / AHEAD_OF_FULL) / chunk_size;
	chunks = (uint64_t)bytes / chunk_size;
	return chunks > 2 ? chunks : 2;
}

/* How many more it may be asked for. Until a peer has shown that it delivers, one:
 * a liar's chunks are wasted. */
static uint64_t window_left(const struct swarm *s, const struct peer *p)
{
	if (!p->proven && p->refusals == 0)
		return p->asked_count + p->unchecked == 0;
	if (p->one_at_a_time || p->closings > 0)
		return p->asked_count == 0;
	/* Nobody is asked for more than its part of what is left: at the end, those who turn
	 * out to be slow hold little. */
	uint64_t chunks = window(s, p), part = s->wanted.count / swarm_connected(s) + 1;
	if (chunks > part)
		chunks = part;
	return p->asked_count < chunks ? chunks - p->asked_count : 0;
}

static void ask_for_chunks(struct swarm *s, struct peer *p)
{
	uint64_t chunk, left = window_left(s, p);

	if (p->partial && p->asked_count == 0 && s->wanted.count > 0 && !find_for(s, p, &chunk)) {
		rest_refused(p);	/* it lacks all that is left */
		return;
	}
	/* Many requests in one go, rather than one for each chunk that came. */
	if (p->asked_count > 0 && left < p->asked_count / 2 && p->out_used == 0)
		return;
	for (;;) {
		while (left > 0 && peer_can_ask(p) && find_for(s, p, &chunk)) {
			wanted_take(&s->wanted, chunk);
			peer_ask(p, chunk, s->meta->cascade_hash);
			p->next = chunk + 1;
			left--;
		}
		if (p->out_used == 0)
			return;
		int error = peer_send(p);
		if (error != 0) {
			swarm_fail(s, p, strerror(error));
			return;
		}
		if (p->out_used > 0)
			return;		/* the socket is full: poll tells when it isn't */
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

/* Whether somebody is connected to, or about to be, who has not been found to be slow. */
static bool has_quick_peer(const struct swarm *s)
{
	for (size_t i = 0; i < s->count; i++)
		if (is_connected(&s->peers[i]) && !s->peers[i].slow)
			return true;
	return false;
}

/* The best of the peers that may be connected to; among equals, any. A slow one is better
 * than none. */
static struct peer *choose_peer(struct swarm *s)
{
	struct peer *best = NULL;
	int64_t now = clock_ms();
	bool quick = has_quick_peer(s);
	size_t start = s->count > 0 ? (size_t)random() % s->count : 0;

	for (size_t i = 0; i < s->count; i++) {
		struct peer *p = &s->peers[(start + i) % s->count];
		bool may_be = !is_connected(p) && !p->banned && p->rest_until_ms <= now &&
			      (p->proven || p->unchecked == 0) && !(p->slow && quick);
		if (may_be && (best == NULL || is_better(p, best)))
			best = p;
	}
	return best;
}

size_t swarm_connected(const struct swarm *s)
{
	size_t connected = 0;

	for (size_t i = 0; i < s->count; i++)
		connected += is_connected(&s->peers[i]);
	return connected;
}

/* Every peer that may have something for us is connected to, as far as there is room:
 * then one that delivers drop by drop keeps nobody else from being asked. */
static void connect_to_all(struct swarm *s)
{
	size_t connected = swarm_connected(s);
	struct peer *p;

	while (s->wanted.count > 0 && connected < SWARM_CONNECTED_MAX && (p = choose_peer(s)) != NULL)
		if (peer_connect(p) < 0)
			swarm_fail(s, p, strerror(errno));
		else
			connected++;
}

void swarm_connection_made(struct swarm *s, struct peer *p)
{
	int error = peer_connected(p);

	if (error != 0)
		swarm_fail(s, p, strerror(error));
	else
		log_debug("%s: connected", swarm_name(p));
}

/* ---- what takes too long --------------------------------------------------------- */

/* How many bytes are still to come of all that the peer was asked for. */
static double bytes_left(const struct swarm *s, const struct peer *p)
{
	bool comes = p->header_got == PEER_RESPONSE_SIZE && p->response.status == PEER_OK;

	return (double)p->asked_count * (double)s->meta->chunk_size - (comes ? (double)p->body_got : 0);
}

/* How long the peer needs for that at its present rate, in seconds. A byte now and then
 * is a rate like any other: it takes very long. */
static double seconds_left(const struct swarm *s, const struct peer *p, int64_t now_ms)
{
	bool stalls = now_ms - p->heard_ms >= scaled(s, SLOW_MS);
	double rate = stalls ? 0 : peer_rate_now(p);

	return rate > 0 ? bytes_left(s, p) / rate : 1e9;
}

/* What the peer was asked for is wanted again; it is not asked while there is another. */
static void leave_slow(struct swarm *s, struct peer *p)
{
	p->slow = true;
	swarm_fail(s, p, "too slow for the rest");
}

/* Whether it may be asked for what another was asked for. One that has refused a chunk
 * since it last had one may do so again. */
static bool can_relieve(const struct peer *p, int64_t now_ms)
{
	return is_connected(p) && !p->connecting && !p->banned && p->asked_count == 0 && p->unchecked == 0 &&
	       p->rest_until_ms <= now_ms && p->refusals == 0;
}

/* The fastest that has nothing to do. One that has delivered nothing yet comes last. */
static struct peer *find_idle(const struct swarm *s, int64_t now_ms)
{
	struct peer *idle = NULL;

	for (size_t i = 0; i < s->count; i++) {
		struct peer *p = &s->peers[i];
		if (can_relieve(p, now_ms) && (idle == NULL || p->rate > idle->rate))
			idle = p;
	}
	return idle;
}

/* When everything that is left has been asked for, and somebody has nothing to do, those
 * that would take far longer than that one lose what they were asked for. */
static void relieve_slow(struct swarm *s)
{
	int64_t now = clock_ms();
	struct peer *idle = s->wanted.count > 0 ? NULL : find_idle(s, now);

	for (size_t i = 0; idle != NULL && i < s->count; i++) {
		struct peer *p = &s->peers[i];
		if (p->asked_count == 0 || now - p->due_ms < scaled(s, SLOW_MS))
			continue;
		double by_idle = (double)p->asked_count * (double)s->meta->chunk_size / (idle->rate > 0 ? idle->rate : WINDOW_FIRST);
		if (seconds_left(s, p, now) > 1 + 2 * by_idle)
			leave_slow(s, p);
	}
}

void swarm_manage(struct swarm *s)
{
	int64_t now = clock_ms();

	share_out(s);
	for (size_t i = 0; i < s->count; i++)
		if (is_connected(&s->peers[i]) && now - s->peers[i].heard_ms >= PATIENCE_MS)
			peer_set_enough(&s->peers[i], 1);
	relieve_slow(s);
	for (size_t i = 0; i < s->count; i++) {
		struct peer *p = &s->peers[i];
		int64_t silent = now - p->heard_ms;
		if (!is_connected(p))
			continue;
		if (p->banned)
			swarm_disconnect(s, p);
		else if (p->connecting && silent >= scaled(s, CONNECT_MS))
			swarm_fail(s, p, "can't be connected to in time");
		else if (p->asked_count > 0 && silent >= scaled(s, SILENCE_MS))
			swarm_fail(s, p, "has been silent for too long");
		else if (!p->connecting && p->rest_until_ms <= now)
			ask_for_chunks(s, p);
	}
	connect_to_all(s);
}

int64_t swarm_next_event_ms(const struct swarm *s, int64_t next_ms)
{
	int64_t now = clock_ms();

	for (size_t i = 0; i < s->count; i++) {
		const struct peer *p = &s->peers[i];
		if (p->connecting)
			next_ms = clock_earlier(next_ms, p->heard_ms + scaled(s, CONNECT_MS));
		else if (p->asked_count > 0 && p->enough > 1)
			next_ms = clock_earlier(next_ms, p->heard_ms + PATIENCE_MS);
		else if (p->asked_count > 0 && s->wanted.count == 0)
			next_ms = clock_earlier(next_ms, now + LOOK_MS);
		else if (p->asked_count > 0 && now - p->heard_ms < scaled(s, STALL_MS))
			next_ms = clock_earlier(next_ms, p->heard_ms + scaled(s, STALL_MS));
		else if (p->asked_count > 0)
			next_ms = clock_earlier(next_ms, p->heard_ms + scaled(s, SILENCE_MS));
		if (!p->banned && p->rest_until_ms > now)
			next_ms = clock_earlier(next_ms, p->rest_until_ms);
	}
	return next_ms;
}

nfds_t swarm_poll(const struct swarm *s, struct pollfd polled[SWARM_CONNECTED_MAX],
		  struct peer *who[SWARM_CONNECTED_MAX])
{
	int64_t now = clock_ms();
	nfds_t count = 0;

	for (size_t i = 0; i < s->count && count < SWARM_CONNECTED_MAX; i++) {
		struct peer *p = &s->peers[i];
		if (!is_connected(p))
			continue;
		bool sends = p->connecting || (p->out_used > 0 && p->rest_until_ms <= now);
		who[count] = p;
		polled[count++] = (struct pollfd){.fd = p->fd, .events = sends ? POLLIN | POLLOUT : POLLIN};
	}
	return count;
}

bool swarm_is_idle(const struct swarm *s)
{
	for (size_t i = 0; i < s->count; i++)
		if (s->peers[i].connecting || s->peers[i].asked_count > 0)
			return false;
	return true;
}
