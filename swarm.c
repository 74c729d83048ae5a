/* swarm.c - what is known of peers, and the choice among them; used by the
 * fetcher. */
#include "swarm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "log.h"

/* Every wait has a limit; --timeout scales them. */
#define CONNECT_MS 5000		/* a SYN and two more of them get lost, and still it connects */
#define SILENCE_MS 10000	/* without a byte while something is asked for */
#define STALL_MS 2000		/* the same, where somebody else has nothing to do */

#define REST_MS 1000		/* after a failure; twice as long after each more, up to */
#define REST_MAX_MS 60000
#define NO_FILE_REST_MS 60000	/* for a peer that doesn't have the file */
#define REFUSED_REST_MS 50	/* after so many times "not yet" that nothing can be hoped for; */
#define REFUSED_REST_MAX_MS 5000	/* twice as long after each more, up to this */

#define PEERS_MAX 128		/* known at a time */

/* Bytes that a peer is asked for ahead of what it sends: what it can deliver in
 * a second, which covers any round trip. 100 ms at 1 Gbit/s are 12 MiB; some ways
 * of congestion control look for three times that at the start, and take a cap
 * below for the sender having nothing more to say. */
#define WINDOW_FIRST (1u << 20)
#define WINDOW_MAX (64u << 20)
#define RATE_MIN 16384			/* bytes a second: a slower peer can be done without */

/* While a peer says "not yet", it is asked for several chunks at a time, here
 * and there; it rests after so many refusals. */
#define PROBES 8
#define REFUSALS_MAX 64

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

/* What is known of which chunks a peer lacks is known of regions: each is one
 * chunk, or as many as make PEER_REGIONS of them cover the file. */
static uint64_t region_size(const struct swarm *s)
{
	return (s->meta->chunks - 1) / PEER_REGIONS + 1;
}

static bool lacks_region(const struct peer *p, uint64_t region)
{
	return p->lacks[region / 8] >> region % 8 & 1;
}

/* A number as good as chance, that everybody works out alike. */
static uint64_t claim(struct address a, uint64_t region)
{
	uint64_t x = ((uint64_t)a.ip << 16 | a.port) * PEER_REGIONS + region;

	for (int i = 0; i < 3; i++) {	/* any function that scatters will do */
		x ^= x >> 32;
		x *= UINT64_C(0xd6e8feb86659fd93);
	}
	return x;
}

/* Peers that have refused a chunk hold parts of the file, as we do. */
static bool is_like_us(const struct peer *p)
{
	return p->partial && !p->banned && p->failures == 0;
}

/* Shares the file out among us and those like us: each region is the share of the
 * one with the greatest claim to it. Whoever holds everything is asked by each for
 * his own share, and so sends it once; the rest is had from whose share it is. */
static void share_out(struct swarm *s)
{
	uint64_t sharers = 1;	/* a sum that is another for others */

	for (size_t i = 0; i < s->count; i++)
		if (is_like_us(&s->peers[i]))
			sharers += claim(s->peers[i].address, 0);
	if (sharers == s->sharers)
		return;
	s->sharers = sharers;
	for (uint64_t region = 0; region < PEER_REGIONS; region++) {
		uint64_t greatest = claim(s->options->self, region);
		s->sharer[region] = NULL;
		for (size_t i = 0; i < s->count; i++) {
			uint64_t its = claim(s->peers[i].address, region);
			if (is_like_us(&s->peers[i]) && its > greatest) {
				greatest = its;
				s->sharer[region] = &s->peers[i];
			}
		}
	}
}

/* Which regions a peer is asked for a chunk of. */
enum regions { ANY_REGION, THE_SHARE };

/* Finds a chunk to ask the peer for: the first from p->next on, wrapping round,
 * that is wanted, and not in a region that it lacks. The share is its own, or that
 * of us where it seems to hold everything. False: there is none. */
static bool find_wanted(const struct swarm *s, const struct peer *p, enum regions which, uint64_t *wanted)
{
	const struct peer *sharer = p->partial ? p : NULL;
	uint64_t chunks = s->meta->chunks, size = region_size(s);
	uint64_t from = p->next < chunks ? p->next : 0;

	if (s->wanted.count == 0)
		return false;
	for (uint64_t i = 0; i <= PEER_REGIONS; i++) {
		uint64_t region = from / size;
		uint64_t end = (region + 1) * size < chunks ? (region + 1) * size : chunks;
		if (!lacks_region(p, region) && (which == ANY_REGION || s->sharer[region] == sharer) &&
		    (*wanted = wanted_next(&s->wanted, from, end)) < end)
			return true;
		from = end < chunks ? end : 0;
	}
	return false;
}

/* Whether those like us are delivering, together, as much as the peer does. */
static bool others_do_as_well(const struct swarm *s, const struct peer *p)
{
	double rate = 0;

	for (size_t i = 0; i < s->count; i++)
		if (is_like_us(&s->peers[i]) && s->peers[i].asked_count > 0)
			rate += s->peers[i].rate;
	return rate > 0 && rate >= p->rate;
}

/* The same: first of the share. A peer that seems to hold everything is left in
 * peace with the rest while others do as well. */
static bool find_for(const struct swarm *s, const struct peer *p, uint64_t *wanted)
{
	return find_wanted(s, p, THE_SHARE, wanted) ||
	       ((p->partial || !others_do_as_well(s, p)) && find_wanted(s, p, ANY_REGION, wanted));
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
	int64_t ms = REFUSED_REST_MS << (p->rests < 6 ? p->rests : 6);

	p->rests++;
	p->stale = true;
	rest(p, clock_jittered(ms < REFUSED_REST_MAX_MS ? ms : REFUSED_REST_MAX_MS));
}

void swarm_fail(struct swarm *s, struct peer *p, const char *why)
{
	unsigned doublings = p->failures < 6 ? p->failures : 6;
	int64_t ms = REST_MS << doublings;

	log_debug("%s: %s", swarm_name(p), why);
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
	if (++p->refusals % REFUSALS_MAX == 0)
		rest_refused(p);
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
		p->next = s->options->ascending ? 0 : random_below(s->meta->chunks);
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
	unsigned usable = 0;

	for (size_t i = 0; i < count; i++) {
		const struct tracker_entry *entry = &entries[i];
		struct peer *p = is_usable(s, entry->address) ? add_peer(s, entry->address) : NULL;
		if (p == NULL)
			continue;
		p->good = entry->good;
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

/* How many more chunks the peer may be asked for. Until a peer has shown that
 * it delivers, one: a liar's chunks are wasted. */
static uint64_t window_left(const struct swarm *s, const struct peer *p)
{
	double rate = peer_rate_ahead(p);
	double bytes = rate < WINDOW_FIRST ? WINDOW_FIRST : rate > WINDOW_MAX ? WINDOW_MAX : rate;
	uint64_t chunks = (uint64_t)bytes / s->meta->chunk_size;

	if (p->one_at_a_time || (!p->proven && p->refusals == 0))
		return p->asked_count + p->unchecked == 0;
	if (p->refusals > 0)
		chunks = PROBES;
	if (chunks < 2)
		chunks = 2;
	if (!p->partial && others_do_as_well(s, p))
		chunks = 1;	/* what others hold changes fast */
	return p->asked_count < chunks ? chunks - p->asked_count : 0;
}

static void ask_for_chunks(struct swarm *s, struct peer *p)
{
	uint64_t chunk, left = window_left(s, p);

	if (p->stale) {
		memset(p->lacks, 0, sizeof p->lacks);
		p->stale = false;
	}
	if (p->asked_count == 0 && s->wanted.count > 0 && !find_wanted(s, p, ANY_REGION, &chunk)) {
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

/* Of the peers that may be connected to: the fastest known one; where no rate is
 * known, one that failed least, and is good, and else any. */
static struct peer *choose_peer(struct swarm *s)
{
	struct peer *best = NULL;
	int64_t now = clock_ms();
	size_t start = s->count > 0 ? (size_t)random() % s->count : 0;

	for (size_t i = 0; i < s->count; i++) {
		struct peer *p = &s->peers[(start + i) % s->count];
		if (is_connected(p) || p->banned || p->rest_until_ms > now || p->unchecked > 0)
			continue;
		if (best != NULL && best->rate <= 0 && p->rate <= 0 && p->failures != best->failures) {
			if (p->failures < best->failures)
				best = p;
			continue;
		}
		if (best == NULL || p->rate > best->rate || (p->rate >= best->rate && p->good && !best->good))
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

/* A connection that may be given up for another: its peer has nothing for us; or
 * nothing good has come from anybody for long, and it is the slowest of those that
 * never brought any. Else eight that deliver drop by drop would be a dam. */
static struct peer *find_useless(struct swarm *s)
{
	struct peer *slowest = NULL;
	int64_t now = clock_ms();

	for (size_t i = 0; i < s->count; i++) {
		struct peer *p = &s->peers[i];
		if (!is_connected(p) || p->connecting || p->unchecked > 0)
			continue;
		if (p->asked_count == 0 && p->rest_until_ms > now)
			return p;
		if (!p->proven && (slowest == NULL || p->rate < slowest->rate))
			slowest = p;
	}
	if (slowest == NULL || slowest->rate >= RATE_MIN || now - s->good_ms < scaled(s, SILENCE_MS) ||
	    now - s->relieved_ms < scaled(s, SILENCE_MS))
		return NULL;
	s->relieved_ms = now;
	return slowest;
}

static void connect_to_more(struct swarm *s)
{
	size_t connected = swarm_connected(s);
	struct peer *p, *useless;

	while (s->wanted.count > 0 && (p = choose_peer(s)) != NULL) {
		if (connected == SWARM_CONNECTED_MAX) {
			if ((useless = find_useless(s)) == NULL)
				return;
			if (useless->asked_count > 0)
				swarm_fail(s, useless, "delivers too little");
			else
				swarm_disconnect(s, useless);
			useless->rate = 0;
			rest(useless, REFUSED_REST_MAX_MS);
			connected--;
		}
		if (peer_connect(p) < 0)
			swarm_fail(s, p, strerror(errno));
		else
			connected++;
	}
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

/* How long the peer would need for what it was asked for, in seconds. */
static double seconds_left(const struct swarm *s, const struct peer *p)
{
	double bytes = (double)p->asked_count * (double)s->meta->chunk_size - (double)p->body_got;

	if (clock_ms() - p->heard_ms >= scaled(s, STALL_MS) || p->rate <= 0)
		return 3600;
	return bytes / p->rate;
}

/* When everything that is left has been asked for, and somebody has nothing to
 * do, the slowest may lose what it was asked for. */
static void relieve_slowest(struct swarm *s)
{
	struct peer *slowest = NULL, *idle = NULL;
	int64_t now = clock_ms();

	if (s->wanted.count > 0)
		return;
	for (size_t i = 0; i < s->count; i++) {
		struct peer *p = &s->peers[i];
		if (!p->proven || p->banned || p->rest_until_ms > now)
			continue;
		if (p->asked_count == 0 && (idle == NULL || p->rate > idle->rate))
			idle = p;
	}
	for (size_t i = 0; i < s->count; i++) {
		struct peer *p = &s->peers[i];
		if (p->asked_count > 0 && p != idle &&
		    (slowest == NULL || seconds_left(s, p) > seconds_left(s, slowest)))
			slowest = p;
	}
	if (idle == NULL || slowest == NULL || now - slowest->heard_ms < scaled(s, STALL_MS) / 4)
		return;
	double rate = idle->rate > 0 ? idle->rate : WINDOW_FIRST;	/* too quick to be measured */
	double by_idle = (double)slowest->asked_count * (double)s->meta->chunk_size / rate;
	if (seconds_left(s, slowest) > 2 + 4 * by_idle) {
		log_debug("%s: too slow for the rest", swarm_name(slowest));
		swarm_disconnect(s, slowest);
		rest(slowest, REST_MAX_MS);
	}
}

void swarm_manage(struct swarm *s)
{
	int64_t now = clock_ms();

	share_out(s);
	relieve_slowest(s);
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
	connect_to_more(s);
}

int64_t swarm_next_event_ms(const struct swarm *s, int64_t next_ms)
{
	int64_t now = clock_ms();

	for (size_t i = 0; i < s->count; i++) {
		const struct peer *p = &s->peers[i];
		if (p->connecting)
			next_ms = clock_earlier(next_ms, p->heard_ms + scaled(s, CONNECT_MS));
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
