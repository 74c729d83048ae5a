/* fetch.c - the fetcher process.
 *
 *   fetcher ─┬─ checkers, for what the data file holds at the start
 *            ├─ checker: reads back and hashes what has arrived
 *            └─ tracker query: one exchange, then it exits
 *
 * One loop around poll takes what peers send, writes each chunk to its place
 * in the data file, and tells the checker. A chunk is held when the checker
 * found its hash right in the file; the fetcher never says so itself. */
#include "fetch.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "clock.h"
#include "log.h"
#include "peer_fetch.h"
#include "process.h"
#include "progress.h"

/* Every wait has a limit; --timeout scales those for peers. */
#define CONNECT_MS 5000		/* a SYN and two more of them get lost, and still it connects */
#define SILENCE_MS 10000	/* without a byte while something is asked for */
#define STALL_MS 2000		/* the same, where somebody else has nothing to do */
#define ASK_MS 10000		/* between two questions to the tracker, and for its answer */
#define LIST_AGE_MS 300000	/* a list that old is asked for again; at first one of 10 s is */
#define SECOND_LIST_MS 1000	/* from the first chunk to one more list: who began with us subscribes now */
#define REST_MS 1000		/* after a failure; twice as long after each more, up to */
#define REST_MAX_MS 60000
#define NO_FILE_REST_MS 60000	/* for a peer that doesn't have the file */
#define REFUSED_REST_MS 50	/* after so many times "not yet" that nothing can be hoped for; */
#define REFUSED_REST_MAX_MS 5000	/* twice as long after each more, up to this */

#define SHARE_MS 1000		/* waited for one file while there are others */

#define PEERS_MAX 128		/* known at a time, for one file */
#define ACTIVE_MAX 8		/* connected at a time */

/* Bytes that a peer is asked for ahead of what it sends: what it can deliver in
 * a second, which covers any round trip. 100 ms at 1 Gbit/s are 12 MiB; some ways
 * of congestion control look for three times that at the start, and take a cap
 * below for the sender having nothing more to say. */
#define WINDOW_FIRST (1u << 20)
#define WINDOW_MAX (64u << 20)
#define RATE_MIN 16384			/* bytes a second: a slower peer can be done without */
#define RATE_MS 250			/* over which a peer's rate is measured */

/* While a peer says "not yet", it is asked for several chunks at a time, here
 * and there; it rests after so many refusals. */
#define PROBES 8
#define REFUSALS_MAX 64

/* A peer that holds all, while others hold parts, is asked for so many chunks
 * ahead: what is rare changes fast. */
#define RARE_AHEAD 1
#define RARE_LOOKS 256		/* chunks looked at to find a rare one */

#define RECEIVE_SIZE ((size_t)256 << 10)	/* bytes taken from a socket at a time */
#define HAND_OVER_SIZE (1u << 20)	/* bytes, and so many chunks as are hashed at once */
#define MERGE_MAX ((size_t)16 << 10)	/* copying less is cheaper than one more write */
#define MESSAGE_MAX 65536		/* bytes of an error message that are put up with */

/* What a tracker query writes into its pipe. */
struct tracker_answer {
	int32_t count;		/* of entries; -1: why holds the reason */
	union {
		struct tracker_entry entries[TRACKER_ENTRIES_MAX];
		char why[TRACKER_WHY_SIZE];
	};
};

/* One file being fetched. */
struct fetch {
	struct datafile *file;
	const struct fetch_options *options;
	struct checker checker;
	struct run unchecked;	/* written, and not yet given to the checker */
	unsigned char *taken;	/* a bit for each chunk: held, asked for, or arrived */
	uint64_t untaken, held;	/* chunks */
	struct peer *peers;
	size_t peer_count;

	pid_t query;		/* the process that asks the tracker, or 0 */
	int query_fd;		/* its pipe, or -1 */
	size_t answer_got;
	struct tracker_answer answer;
	int64_t ask_after_ms, listed_ms, begun_ms;

	uint64_t wasted;		/* bytes */
	uint64_t start_bytes;		/* held when it began */
	int64_t relieved_ms;		/* when a slow peer last had to make room */
	double seconds;			/* spent on it */
	bool said_tracker_trouble, said_waiting;
	bool failed;			/* it can't go on, and has said why */
};

/* When a good chunk of any file last came: a file that waits for its turn must
 * not be given up for it. */
static int64_t arrival_ms;

/* Tells the serving parent that there is more to serve than before. A full
 * pipe is as good: it will look. */
static void give_news(const struct fetch_options *options)
{
	if (options->news >= 0)
		(void)!write(options->news, "", 1);
}

static int scaled(const struct fetch *f, int ms)
{
	return (int)(ms * f->options->time_scale);
}

/* A time somewhere around ms, so that many fetchers don't move in step. */
static int64_t jittered(int64_t ms)
{
	return ms * 3 / 4 + random() % (ms / 2 + 1);
}

static uint64_t random_below(uint64_t n)
{
	return (((uint64_t)random() << 31) ^ (uint64_t)random()) % n;
}

/* ---- which chunks are wanted ---------------------------------------------- */

static bool is_taken(const struct fetch *f, uint64_t chunk)
{
	return f->taken[chunk / 8] >> chunk % 8 & 1;
}

static void take(struct fetch *f, uint64_t chunk)
{
	f->taken[chunk / 8] |= (unsigned char)(1u << chunk % 8);
	f->untaken--;
}

static void give_back(struct fetch *f, uint64_t chunk)
{
	f->taken[chunk / 8] &= (unsigned char)~(1u << chunk % 8);
	f->untaken++;
}

/* The first chunk from `from` up to end that is not taken, or end. */
static uint64_t find_untaken(const struct fetch *f, uint64_t from, uint64_t end)
{
	uint64_t chunk = from;

	while (chunk < end && is_taken(f, chunk))
		chunk += chunk % 8 == 0 && f->taken[chunk / 8] == 0xff ? 8 : 1;
	return chunk < end ? chunk : end;
}

/* What is known of which chunks a peer lacks is known of regions: each is one
 * chunk, or as many as make PEER_REGIONS of them cover the file. */
static uint64_t region_size(const struct fetch *f)
{
	return (f->file->meta.chunks - 1) / PEER_REGIONS + 1;
}

static bool lacks_region(const struct peer *p, uint64_t region)
{
	return p->lacks[region / 8] >> region % 8 & 1;
}

/* Finds a chunk to ask the peer for: the first from p->next on, wrapping round,
 * that is not taken, and not in a region that it lacks. False: there is none. */
static bool find_wanted(const struct fetch *f, const struct peer *p, uint64_t *wanted)
{
	uint64_t chunks = f->file->meta.chunks, size = region_size(f);
	uint64_t from = p->next < chunks ? p->next : 0;

	if (f->untaken == 0)
		return false;
	for (uint64_t i = 0; i <= PEER_REGIONS; i++) {
		uint64_t region = from / size;
		uint64_t end = (region + 1) * size < chunks ? (region + 1) * size : chunks;
		if (!lacks_region(p, region) && (*wanted = find_untaken(f, from, end)) < end)
			return true;
		from = end < chunks ? end : 0;
	}
	return false;
}

static unsigned count_partial(const struct fetch *f)
{
	unsigned count = 0;

	for (size_t i = 0; i < f->peer_count; i++)
		count += f->peers[i].partial && f->peers[i].fd >= 0;
	return count;
}

static unsigned count_lacking(const struct fetch *f, uint64_t region)
{
	unsigned count = 0;

	for (size_t i = 0; i < f->peer_count; i++)
		count += f->peers[i].fd >= 0 && lacks_region(&f->peers[i], region);
	return count;
}

/* The same; but a peer that seems to hold all, while others hold parts, is
 * best asked for what most of the others lack, found by looking here and there,
 * and left in peace with what none of them lacks. If everybody does so, the only
 * holder of a chunk sends it once or so, and not to each. */
static bool find_for(const struct fetch *f, const struct peer *p, uint64_t *wanted)
{
	uint64_t chunks = f->file->meta.chunks, chunk;
	unsigned partial = count_partial(f), most = 0;

	if (!find_wanted(f, p, wanted))
		return false;
	if (partial == 0 || p->partial)
		return true;
	for (unsigned i = 0; i < RARE_LOOKS && most < partial; i++) {
		if ((chunk = find_untaken(f, random_below(chunks), chunks)) == chunks)
			continue;
		unsigned lacking = count_lacking(f, chunk / region_size(f));
		if (lacking > most) {
			most = lacking;
			*wanted = chunk;
		}
	}
	if (most > 0)
		return true;
	for (size_t i = 0; i < f->peer_count; i++)
		if (f->peers[i].partial && f->peers[i].asked_count > 0)
			return false;
	return true;
}

/* ---- peers ----------------------------------------------------------------- */

static const char *name_of(const struct peer *p)
{
	static char text[ADDRESS_TEXT_SIZE];

	return address_text(p->address, text);
}

/* Ends the connection; what was asked for becomes wanted again. */
static void disconnect(struct fetch *f, struct peer *p)
{
	if (p->asked_count > 0 && p->header_got == PEER_RESPONSE_SIZE && p->response.status == PEER_OK)
		f->wasted += p->body_got;
	while (p->asked_count > 0) {
		give_back(f, peer_awaited(p));
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
	rest(p, jittered(ms < REFUSED_REST_MAX_MS ? ms : REFUSED_REST_MAX_MS));
}

/* The peer or the way to it failed: it is left alone for a while. */
static void fail(struct fetch *f, struct peer *p, const char *why)
{
	unsigned doublings = p->failures < 6 ? p->failures : 6;
	int64_t ms = REST_MS << doublings;

	log_debug("%s: %s", name_of(p), why);
	disconnect(f, p);
	p->failures++;
	rest(p, jittered(ms < REST_MAX_MS ? ms : REST_MAX_MS));
}

/* The peer doesn't keep to the protocol: nothing more is asked of it. */
static void ban(struct fetch *f, struct peer *p, const char *why)
{
	log_warnx("%s: %s; it is not asked again", name_of(p), why);
	disconnect(f, p);
	p->banned = true;
}

static struct peer *find_peer(struct fetch *f, struct address a)
{
	for (size_t i = 0; i < f->peer_count; i++)
		if (f->peers[i].address.ip == a.ip && f->peers[i].address.port == a.port)
			return &f->peers[i];
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
static struct peer *new_peer(struct fetch *f)
{
	struct peer *worst = NULL;

	if (f->peer_count < PEERS_MAX)
		return &f->peers[f->peer_count++];
	for (size_t i = 0; i < f->peer_count; i++) {
		struct peer *p = &f->peers[i];
		if (p->fd < 0 && p->unchecked == 0 && !p->direct && badness(p) > 0 &&
		    (worst == NULL || badness(p) > badness(worst)))
			worst = p;
	}
	return worst;
}

static struct peer *add_peer(struct fetch *f, struct address a)
{
	struct peer *p = find_peer(f, a);

	if (p == NULL && (p = new_peer(f)) != NULL) {
		memset(p, 0, sizeof *p);
		p->address = a;
		p->fd = -1;
		p->next = f->options->ascending ? 0 : random_below(f->file->meta.chunks);
	}
	return p;
}

static bool is_loopback(uint32_t ip)
{
	return ip >> 24 == 127;
}

/* Whether there can be another peer at that address. A tracker may know
 * 127.0.0.1 for a peer on its own machine; elsewhere it means something else. */
static bool is_usable(const struct fetch *f, struct address a)
{
	const struct address self = f->options->self;

	return a.port != 0 && a.ip >> 24 != 0 && a.ip >> 28 < 14 &&
	       (a.ip != self.ip || a.port != self.port) &&
	       (!is_loopback(a.ip) || is_loopback(self.ip) || self.ip == 0);
}

/* ---- the tracker ----------------------------------------------------------- */

static void run_query(const struct fetch *f, int to_fetcher)
{
	static struct tracker_answer answer;
	struct tracker_request request = {.command = TRACKER_LIST, .self = f->options->self};
	const uint8_t *p = (const uint8_t *)&answer;

	memcpy(request.cascade_hash, f->file->meta.cascade_hash, SHA256_HASH_SIZE);
	answer.count = tracker_exchange(f->options->tracker_host, f->options->tracker_port, request,
					scaled(f, ASK_MS), answer.entries, answer.why);
	for (size_t left = sizeof answer; left > 0; ) {
		ssize_t n = write(to_fetcher, p, left);
		if (n < 0 && errno != EINTR)
			break;
		if (n > 0)
			p += n, left -= (size_t)n;
	}
	_exit(EXIT_SUCCESS);
}

static void start_query(struct fetch *f)
{
	int fds[2];

	f->ask_after_ms = clock_ms() + ASK_MS;
	if (pipe(fds) < 0) {
		log_warn("can't ask the tracker");
		return;
	}
	f->query = process_fork("tracker query");
	if (f->query == 0)
		run_query(f, fds[1]);
	close(fds[1]);
	if (f->query < 0) {
		log_warn("can't ask the tracker");
		close(fds[0]);
		f->query = 0;
		return;
	}
	f->query_fd = fds[0];
	f->answer_got = 0;
}

static void take_entries(struct fetch *f)
{
	unsigned usable = 0;

	for (int32_t i = 0; i < f->answer.count && i < TRACKER_ENTRIES_MAX; i++) {
		const struct tracker_entry *entry = &f->answer.entries[i];
		struct peer *p = is_usable(f, entry->address) ? add_peer(f, entry->address) : NULL;
		if (p == NULL)
			continue;
		p->good = entry->good;
		usable++;
	}
	log_debug("%s: the tracker names %u peers", f->file->path, usable);
	f->listed_ms = clock_ms();
	f->said_tracker_trouble = false;
	if (f->peer_count == 0 && !f->said_waiting) {
		log_info("%s: the tracker knows no other peer; waiting for one", f->file->path);
		f->said_waiting = true;
	}
}

/* Reads on from the query's pipe, and takes its answer when it is whole. */
static void read_query(struct fetch *f)
{
	ssize_t n = read(f->query_fd, (uint8_t *)&f->answer + f->answer_got,
			 sizeof f->answer - f->answer_got);

	if (n < 0 && errno == EINTR)
		return;
	if (n > 0)
		f->answer_got += (size_t)n;
	if (n > 0 && f->answer_got < sizeof f->answer)
		return;
	close(f->query_fd);
	process_wait(f->query);
	f->query_fd = -1;
	f->query = 0;
	f->ask_after_ms = clock_ms() + jittered(ASK_MS + ASK_MS / 3);
	if (f->answer_got == sizeof f->answer && f->answer.count >= 0) {
		take_entries(f);
	} else if (!f->said_tracker_trouble) {
		log_warnx("tracker %s:%s: %s; it is asked again every 10 s or so",
			  f->options->tracker_host, f->options->tracker_port,
			  f->answer_got == sizeof f->answer ? f->answer.why : "no answer");
		f->said_tracker_trouble = true;
	}
}

static bool has_usable_peer(const struct fetch *f)
{
	for (size_t i = 0; i < f->peer_count; i++)
		if (!f->peers[i].banned && f->peers[i].failures == 0 && f->peers[i].refusals < REFUSALS_MAX)
			return true;
	return false;
}

/* How old a list may get: as old as the download was when it came. A swarm that
 * is young has new members all the time. */
static int64_t list_age_ms(const struct fetch *f)
{
	int64_t ms = f->listed_ms - f->begun_ms;

	return ms < ASK_MS ? ASK_MS : ms < LIST_AGE_MS ? ms : LIST_AGE_MS;
}

static void ask_tracker_if_due(struct fetch *f)
{
	int64_t now = clock_ms();

	if (f->options->tracker_host == NULL || f->query != 0 || now < f->ask_after_ms)
		return;
	if (f->listed_ms == 0 || now - f->listed_ms >= list_age_ms(f) || !has_usable_peer(f))
		start_query(f);
}

/* ---- asking peers ----------------------------------------------------------- */

static bool is_active(const struct peer *p)
{
	return p->fd >= 0;
}

/* How many more chunks the peer may be asked for. Until a peer has shown that
 * it delivers, one: a liar's chunks are wasted. */
static uint64_t window_left(const struct fetch *f, const struct peer *p)
{
	double so_far = (double)p->rate_bytes * 1000 / RATE_MS;	/* at least the rate to come */
	double rate = so_far > p->rate ? so_far : p->rate;
	double bytes = rate < WINDOW_FIRST ? WINDOW_FIRST : rate > WINDOW_MAX ? WINDOW_MAX : rate;
	uint64_t chunks = (uint64_t)bytes / f->file->meta.chunk_size;

	if (p->one_at_a_time || (!p->proven && p->refusals == 0))
		return p->asked_count + p->unchecked == 0;
	if (p->refusals > 0)
		chunks = PROBES;
	if (chunks < 2)
		chunks = 2;
	if (chunks > RARE_AHEAD && !p->partial && count_partial(f) > 0)
		chunks = RARE_AHEAD;
	return p->asked_count < chunks ? chunks - p->asked_count : 0;
}

static void ask_for_chunks(struct fetch *f, struct peer *p)
{
	uint64_t chunk, left = window_left(f, p);

	if (p->stale) {
		memset(p->lacks, 0, sizeof p->lacks);
		p->stale = false;
	}
	if (p->asked_count == 0 && f->untaken > 0 && !find_wanted(f, p, &chunk)) {
		rest_refused(p);	/* it lacks all that is left */
		return;
	}
	/* Many requests in one go, rather than one for each chunk that came. */
	if (p->asked_count > 0 && left < p->asked_count / 2 && p->out_used == 0)
		return;
	for (;;) {
		while (left > 0 && peer_can_ask(p) && find_for(f, p, &chunk)) {
			take(f, chunk);
			peer_ask(p, chunk, f->file->meta.cascade_hash);
			p->next = chunk + 1;
			left--;
		}
		if (p->out_used == 0)
			return;
		int error = peer_send(p);
		if (error != 0) {
			fail(f, p, strerror(error));
			return;
		}
		if (p->out_used > 0)
			return;		/* the socket is full: poll tells when it isn't */
	}
}

/* Of the peers that may be connected to: the fastest known one; where no rate is
 * known, one that failed least, and is good, and else any. */
static struct peer *choose_peer(struct fetch *f)
{
	struct peer *best = NULL;
	int64_t now = clock_ms();
	size_t start = f->peer_count > 0 ? (size_t)random() % f->peer_count : 0;

	for (size_t i = 0; i < f->peer_count; i++) {
		struct peer *p = &f->peers[(start + i) % f->peer_count];
		if (is_active(p) || p->banned || p->rest_until_ms > now || p->unchecked > 0)
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

static size_t count_active(const struct fetch *f)
{
	size_t active = 0;

	for (size_t i = 0; i < f->peer_count; i++)
		active += is_active(&f->peers[i]);
	return active;
}

/* A connection that may be given up for another: its peer has nothing for us; or
 * nothing good has come from anybody for long, and it is the slowest of those that
 * never brought any. Else eight that deliver drop by drop would be a dam. */
static struct peer *find_useless(struct fetch *f)
{
	struct peer *slowest = NULL;
	int64_t now = clock_ms();

	for (size_t i = 0; i < f->peer_count; i++) {
		struct peer *p = &f->peers[i];
		if (!is_active(p) || p->connecting || p->unchecked > 0)
			continue;
		if (p->asked_count == 0 && p->rest_until_ms > now)
			return p;
		if (!p->proven && (slowest == NULL || p->rate < slowest->rate))
			slowest = p;
	}
	if (slowest == NULL || slowest->rate >= RATE_MIN || now - arrival_ms < scaled(f, SILENCE_MS) ||
	    now - f->relieved_ms < scaled(f, SILENCE_MS))
		return NULL;
	f->relieved_ms = now;
	return slowest;
}

static void connect_to_more(struct fetch *f)
{
	size_t active = count_active(f);
	struct peer *p, *useless;

	while (f->untaken > 0 && (p = choose_peer(f)) != NULL) {
		if (active == ACTIVE_MAX) {
			if ((useless = find_useless(f)) == NULL)
				return;
			if (useless->asked_count > 0)
				fail(f, useless, "delivers too little");
			else
				disconnect(f, useless);
			useless->rate = 0;
			rest(useless, REFUSED_REST_MAX_MS);
			active--;
		}
		if (peer_connect(p) < 0)
			fail(f, p, strerror(errno));
		else
			active++;
	}
}

/* How long the peer would need for what it was asked for, in seconds. */
static double seconds_left(const struct fetch *f, const struct peer *p)
{
	double bytes = (double)p->asked_count * (double)f->file->meta.chunk_size - (double)p->body_got;

	if (clock_ms() - p->heard_ms >= scaled(f, STALL_MS) || p->rate <= 0)
		return 3600;
	return bytes / p->rate;
}

/* When everything that is left has been asked for, and somebody has nothing to
 * do, the slowest may lose what it was asked for. */
static void relieve_slowest(struct fetch *f)
{
	struct peer *slowest = NULL, *idle = NULL;
	int64_t now = clock_ms();

	if (f->untaken > 0)
		return;
	for (size_t i = 0; i < f->peer_count; i++) {
		struct peer *p = &f->peers[i];
		if (!p->proven || p->banned || p->rest_until_ms > now)
			continue;
		if (p->asked_count == 0 && (idle == NULL || p->rate > idle->rate))
			idle = p;
	}
	for (size_t i = 0; i < f->peer_count; i++) {
		struct peer *p = &f->peers[i];
		if (p->asked_count > 0 && p != idle &&
		    (slowest == NULL || seconds_left(f, p) > seconds_left(f, slowest)))
			slowest = p;
	}
	if (idle == NULL || slowest == NULL || now - slowest->heard_ms < scaled(f, STALL_MS) / 4)
		return;
	double rate = idle->rate > 0 ? idle->rate : WINDOW_FIRST;	/* too quick to be measured */
	double by_idle = (double)slowest->asked_count * (double)f->file->meta.chunk_size / rate;
	if (seconds_left(f, slowest) > 2 + 4 * by_idle) {
		log_debug("%s: too slow for the rest", name_of(slowest));
		disconnect(f, slowest);
		rest(slowest, REST_MAX_MS);
	}
}

static void manage_peers(struct fetch *f)
{
	int64_t now = clock_ms();

	relieve_slowest(f);
	for (size_t i = 0; i < f->peer_count; i++) {
		struct peer *p = &f->peers[i];
		int64_t silent = now - p->heard_ms;
		if (!is_active(p))
			continue;
		if (p->banned)
			disconnect(f, p);
		else if (p->connecting && silent >= scaled(f, CONNECT_MS))
			fail(f, p, "can't be connected to in time");
		else if (p->asked_count > 0 && silent >= scaled(f, SILENCE_MS))
			fail(f, p, "has been silent for too long");
		else if (!p->connecting && p->rest_until_ms <= now)
			ask_for_chunks(f, p);
	}
	connect_to_more(f);
}

/* ---- what arrives ------------------------------------------------------------ */

/* Bytes that were received and not yet written, and chunks that are complete
 * once they are. */
struct unwritten {
	uint8_t *bytes;
	size_t size;
	uint64_t offset;	/* in the data file */
	struct run run;
};

/* The first chunk is held: from now on this peer is one of those who serve. */
static void begin_to_share(struct fetch *f)
{
	give_news(f->options);
	if (f->options->news >= 0) {
		f->ask_after_ms = clock_ms() + SECOND_LIST_MS;
		f->listed_ms = 0;
	}
}

static void take_results(struct fetch *f)
{
	struct run runs[CHECKER_WAITING_MAX];
	ssize_t n = checker_receive(&f->checker, runs);

	if (n < 0) {
		log_warnx("%s: the checker has died; was the file cut by somebody else?", f->file->path);
		f->failed = true;
		return;
	}
	for (ssize_t i = 0; i < n; i++) {
		const struct run *run = &runs[i];
		struct peer *p = &f->peers[run->peer];
		p->unchecked--;
		if (f->held == 0 && run->count > run->bad)
			begin_to_share(f);
		f->held += run->count - run->bad;
		p->chunks += run->count - run->bad;
		if (run->count > run->bad) {
			p->proven = true;
			p->failures = 0;
			arrival_ms = clock_ms();
		}
		if (run->bad == 0)
			continue;
		for (uint64_t chunk = run->first; chunk < run->first + run->count; chunk++)
			if (!held_has(f->file->held, chunk)) {
				give_back(f, chunk);
				f->wasted += metafile_chunk_length(&f->file->meta, chunk);
			}
		if (run->error != 0) {
			errno = run->error;
			log_warn("%s: can't be read back", f->file->path);
			f->failed = true;
		} else if (!p->banned) {
			log_warnx("%s: sent a wrong chunk (%llu); it is not asked again", name_of(p),
				  (unsigned long long)run->first);
			p->banned = true;	/* disconnected by manage_peers */
		}
	}
}

static void flush_unchecked(struct fetch *f)
{
	while (f->checker.waiting == CHECKER_WAITING_MAX && !f->failed)
		take_results(f);
	if (f->unchecked.count == 0 || f->failed)
		return;
	if (checker_send(&f->checker, &f->unchecked) < 0) {
		log_warn("%s: the checker is gone", f->file->path);
		f->failed = true;
	}
	f->unchecked.count = 0;
}

/* Gives written chunks to the checker; not one by one while more keep coming,
 * since it hashes several in little more time than one. */
static void hand_over(struct fetch *f, struct peer *p, const struct run *run)
{
	struct run *u = &f->unchecked;
	uint32_t peer = (uint32_t)(p - f->peers);

	if (u->count > 0 && (u->peer != peer || u->first + u->count != run->first))
		flush_unchecked(f);
	if (u->count == 0) {
		*u = (struct run){.first = run->first, .peer = peer};
		p->unchecked++;
	}
	u->count += run->count;
	if (u->count >= SHA256_LANES && u->count >= HAND_OVER_SIZE / f->file->meta.chunk_size)
		flush_unchecked(f);
}

/* The disk is full, or so. What has been written whole is still checked, and is
 * then held and served. */
static void end_with_write_error(struct fetch *f)
{
	char missing[PROGRESS_BYTES_TEXT_SIZE];
	int error = errno;

	flush_unchecked(f);
	while (f->checker.waiting > 0 && !f->failed)
		take_results(f);
	uint64_t bytes = datafile_missing_bytes(f->file);
	errno = error;
	log_warn("%s: can't be written (%s, %llu bytes, still to come; what is verified is kept)",
		 f->file->path, progress_bytes_text((double)bytes, missing), (unsigned long long)bytes);
	f->failed = true;
}

/* Writes the bytes, and gives the chunks that they complete to the checker. */
static void write_out(struct fetch *f, struct peer *p, struct unwritten *u)
{
	while (u->size > 0) {
		ssize_t n = pwrite(f->file->fd, u->bytes, u->size, (off_t)u->offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			if (n == 0)
				errno = ENOSPC;
			end_with_write_error(f);
			return;
		}
		u->bytes += n;
		u->size -= (size_t)n;
		u->offset += (uint64_t)n;
	}
	if (u->run.count > 0)
		hand_over(f, p, &u->run);
	u->run.count = 0;
}

/* Adds a piece of a chunk to what is unwritten, where it continues that. */
static void add_bytes(struct fetch *f, struct peer *p, struct unwritten *u, uint8_t *bytes,
		      size_t size, uint64_t offset)
{
	bool continues = u->size > 0 && u->offset + u->size == offset;

	if (continues && u->bytes + u->size != bytes) {
		/* A response's header lies between. */
		if (size > MERGE_MAX)
			continues = false;
		else
			memmove(u->bytes + u->size, bytes, size);
	}
	if (!continues) {
		write_out(f, p, u);
		u->bytes = bytes;
		u->offset = offset;
		u->size = 0;
	}
	u->size += size;
}

/* The bytes added last completed the chunk. What is unwritten lies in one
 * piece in the file, so the chunks that it completes are neighbours. */
static void add_chunk(struct unwritten *u, uint64_t chunk)
{
	if (u->run.count == 0)
		u->run.first = chunk;
	u->run.count++;
}

/* Looks at the response's header that has come. False: the peer is gone. */
static bool begin_response(struct fetch *f, struct peer *p)
{
	uint64_t length;

	peer_response_decode(&p->response, p->header);
	p->body_got = 0;
	if (p->asked_count == 0) {
		if (p->response.status == PEER_OK)
			ban(f, p, "answers what it wasn't asked");
		else
			fail(f, p, "has too much to do");
		return false;
	}
	length = metafile_chunk_length(&f->file->meta, peer_awaited(p));
	if (p->response.status == PEER_OK && p->response.length != length)
		ban(f, p, "sends a chunk of the wrong length");
	else if (p->response.status > PEER_BAD_REQUEST)
		ban(f, p, "answers with an unknown status");
	else if (p->response.status != PEER_OK && p->response.length > MESSAGE_MAX)
		ban(f, p, "sends an error message without end");
	if (p->response.status == PEER_OK)
		p->refusals = p->rests = 0;
	return is_active(p);
}

/* Remembers that the peer lacks the chunk, and looks elsewhere for what it may
 * have; if it seems to have nothing, later. */
static void lack(struct fetch *f, struct peer *p, uint64_t chunk)
{
	uint64_t region = chunk / region_size(f);

	p->partial = true;
	p->lacks[region / 8] |= (uint8_t)(1u << region % 8);
	p->next = random_below(f->file->meta.chunks);
	if (++p->refusals % REFUSALS_MAX == 0)
		rest_refused(p);
}

/* The awaited response has come whole, and is an error. False: the peer was
 * disconnected. */
static bool finish_error(struct fetch *f, struct peer *p)
{
	uint64_t chunk = peer_awaited(p);

	switch (p->response.status) {
	case PEER_NO_CHUNK_YET:
		log_debug("%s: doesn't have chunk %llu yet", name_of(p), (unsigned long long)chunk);
		give_back(f, chunk);
		peer_forget_awaited(p);
		lack(f, p, chunk);
		return true;
	case PEER_NO_FILE:
		fail(f, p, "doesn't have the file");
		rest(p, jittered(NO_FILE_REST_MS));
		return false;
	case PEER_BAD_REQUEST:
		if (!p->one_at_a_time && (p->asked_count > 1 || p->answers > 0)) {
			log_debug("%s: takes one request at a time", name_of(p));
			disconnect(f, p);
			p->one_at_a_time = true;
			return false;
		}
		ban(f, p, "can't parse a request");
		return false;
	default:
		ban(f, p, "denies that there is such a chunk");
		return false;
	}
}

static void measure_rate(struct peer *p, size_t bytes)
{
	int64_t now = clock_ms(), ms = now - p->rate_since_ms;

	p->heard_ms = now;
	p->rate_bytes += bytes;
	if (ms < RATE_MS)
		return;
	double rate = (double)p->rate_bytes * 1000 / (double)ms;
	p->rate = rate > p->rate ? rate : (3 * p->rate + rate) / 4;
	p->rate_bytes = 0;
	p->rate_since_ms = now;
}

/* Takes apart what has come: headers, bodies, in any pieces. */
static void take_bytes(struct fetch *f, struct peer *p, uint8_t *bytes, size_t size)
{
	struct unwritten u = {0};
	const struct metafile *m = &f->file->meta;

	while (size > 0 && is_active(p) && !f->failed) {
		if (p->header_got < PEER_RESPONSE_SIZE) {
			size_t take_now = PEER_RESPONSE_SIZE - p->header_got;
			if (take_now > size)
				take_now = size;
			memcpy(p->header + p->header_got, bytes, take_now);
			p->header_got += (unsigned)take_now;
			bytes += take_now;
			size -= take_now;
			if (p->header_got < PEER_RESPONSE_SIZE || !begin_response(f, p))
				continue;
		}
		uint64_t left = p->response.length - p->body_got;
		size_t piece = left < size ? (size_t)left : size;
		if (p->response.status == PEER_OK)
			add_bytes(f, p, &u, bytes, piece,
				  metafile_chunk_offset(m, peer_awaited(p)) + p->body_got);
		p->body_got += piece;
		bytes += piece;
		size -= piece;
		if (p->body_got < p->response.length)
			continue;
		p->header_got = 0;
		if (p->response.status == PEER_OK) {
			add_chunk(&u, peer_awaited(p));
			peer_forget_awaited(p);
		} else if (!finish_error(f, p)) {
			continue;
		}
		p->answers++;
	}
	if (!f->failed)
		write_out(f, p, &u);
}

static void handle_end(struct fetch *f, struct peer *p, const char *why)
{
	if (p->asked_count == 0) {
		log_debug("%s: closed the connection", name_of(p));
		disconnect(f, p);
	} else if (p->answers > 0 && p->header_got == 0) {
		/* Its right, after a response; what was asked for is asked again. */
		if (p->answers == 1)
			p->one_at_a_time = true;
		disconnect(f, p);
	} else {
		fail(f, p, why);
	}
}

static void receive(struct fetch *f, struct peer *p)
{
	static uint8_t buffer[RECEIVE_SIZE];
	ssize_t n = recv(p->fd, buffer, sizeof buffer, 0);

	if (n > 0) {
		measure_rate(p, (size_t)n);
		take_bytes(f, p, buffer, (size_t)n);
	} else if (n == 0) {
		handle_end(f, p, "closed the connection before it answered");
	} else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
		handle_end(f, p, strerror(errno));
	}
}

/* ---- the loop ------------------------------------------------------------------ */

static int64_t earlier(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* When something must be done even if nothing comes. */
static int64_t next_event_ms(const struct fetch *f)
{
	int64_t now = clock_ms(), next = now + 60000;

	if (log_get_level() != LOG_QUIET)
		next = earlier(next, progress_next_ms());
	if (f->options->tracker_host != NULL && f->query == 0)
		next = earlier(next, f->ask_after_ms > now ? f->ask_after_ms : now + 1000);
	if (f->options->give_up_s > 0)
		next = earlier(next, arrival_ms + (int64_t)f->options->give_up_s * 1000);
	for (size_t i = 0; i < f->peer_count; i++) {
		const struct peer *p = &f->peers[i];
		if (p->connecting)
			next = earlier(next, p->heard_ms + scaled(f, CONNECT_MS));
		else if (p->asked_count > 0 && now - p->heard_ms < scaled(f, STALL_MS))
			next = earlier(next, p->heard_ms + scaled(f, STALL_MS));
		else if (p->asked_count > 0)
			next = earlier(next, p->heard_ms + scaled(f, SILENCE_MS));
		if (!p->banned && p->rest_until_ms > now)
			next = earlier(next, p->rest_until_ms);
	}
	return next;
}

static void wait_and_handle(struct fetch *f, bool share)
{
	struct pollfd polled[ACTIVE_MAX + 2];
	struct peer *who[ACTIVE_MAX + 2];
	nfds_t count = 2;
	int64_t now = clock_ms(), next_ms = next_event_ms(f);

	if (share)
		next_ms = earlier(next_ms, now + SHARE_MS);
	polled[0] = (struct pollfd){.fd = f->checker.from, .events = POLLIN};
	polled[1] = (struct pollfd){.fd = f->query_fd, .events = POLLIN};
	for (size_t i = 0; i < f->peer_count && count < ACTIVE_MAX + 2; i++) {
		struct peer *p = &f->peers[i];
		if (!is_active(p))
			continue;
		who[count] = p;
		polled[count++] = (struct pollfd){
			.fd = p->fd, .events = p->connecting || (p->out_used > 0 && p->rest_until_ms <= now)
				? POLLIN | POLLOUT : POLLIN};
	}
	int ready = f->unchecked.count > 0 ? poll(polled, count, 0) : 0;
	if (ready == 0) {
		flush_unchecked(f);
		ready = poll(polled, count, clock_poll_timeout(next_ms));
	}
	if (ready < 0) {
		if (errno != EINTR)
			fatal("poll");
		return;
	}
	if (polled[0].revents != 0)
		take_results(f);
	if (polled[1].revents != 0)
		read_query(f);
	for (nfds_t i = 2; i < count && !f->failed; i++) {
		struct peer *p = who[i];
		if (polled[i].revents == 0 || p->banned)
			continue;
		if (p->connecting) {
			int error = peer_connected(p);
			if (error != 0)
				fail(f, p, strerror(error));
			else
				log_debug("%s: connected", name_of(p));
		} else if (polled[i].revents & (POLLIN | POLLHUP | POLLERR)) {
			receive(f, p);
		}
	}
}

/* Nothing is under way: another file may have its turn. Connections over which
 * nothing was asked can wait for the next one. */
static bool is_idle(const struct fetch *f)
{
	if (f->query != 0 || f->checker.waiting > 0 || f->unchecked.count > 0)
		return false;
	for (size_t i = 0; i < f->peer_count; i++)
		if (f->peers[i].connecting || f->peers[i].asked_count > 0)
			return false;
	return true;
}

static bool gives_up(struct fetch *f)
{
	unsigned seconds = f->options->give_up_s;

	if (seconds == 0 || clock_ms() - arrival_ms < (int64_t)seconds * 1000)
		return false;
	log_warnx("%s: nothing has arrived for %u s; given up, with %llu bytes missing", f->file->path,
		  seconds, (unsigned long long)datafile_missing_bytes(f->file));
	f->failed = true;
	return true;
}

static uint64_t held_bytes(const struct fetch *f)
{
	const struct metafile *m = &f->file->meta;
	uint64_t bytes = f->held * m->chunk_size, last = m->chunks - 1;

	return held_has(f->file->held, last) ? bytes - m->chunk_size + metafile_chunk_length(m, last) : bytes;
}

static bool is_complete(const struct fetch *f)
{
	return f->held == f->file->meta.chunks;
}

/* Fetches until the file is complete, or can't be; or, if it has to share, until
 * there is nothing to do for it but wait. */
static void fetch_file(struct fetch *f, bool share)
{
	progress_begin("downloading", f->file, held_bytes(f));
	while (!is_complete(f) && !f->failed && !gives_up(f)) {
		manage_peers(f);
		ask_tracker_if_due(f);
		wait_and_handle(f, share);
		progress_show(held_bytes(f), (int)count_active(f));
		if (share && is_idle(f))
			break;
	}
	f->seconds += progress_end();
}

/* ---- one file, from beginning to end ------------------------------------------- */

/* Prepares to fetch what is missing. False, after a message: it can't be. */
static bool begin(struct fetch *f, struct datafile *d, const struct fetch_options *options)
{
	uint64_t chunks = d->meta.chunks;

	*f = (struct fetch){.file = d, .options = options, .query_fd = -1, .begun_ms = clock_ms()};
	f->held = held_count(d->held);
	f->untaken = chunks;
	if ((!is_complete(f) || d->too_long) && datafile_begin_write(d) < 0)
		return false;
	/* Whoever waits for the end is told of the whole, too. */
	if (is_complete(f) && (options->news >= 0 || chunks == 0))
		return true;
	f->start_bytes = held_bytes(f);
	f->taken = calloc((size_t)(chunks / 8 + 1), 1);
	f->peers = calloc(PEERS_MAX, sizeof f->peers[0]);
	if (f->taken == NULL || f->peers == NULL || checker_start(&f->checker, &d->meta, d->fd, d->held) < 0) {
		log_warn("%s: can't be downloaded", d->path);
		free(f->taken);
		free(f->peers);
		f->peers = NULL;	/* it has no turn, and nothing to end */
		return false;
	}
	for (uint64_t chunk = 0; chunk < chunks; chunk++)
		if (held_has(d->held, chunk))
			take(f, chunk);
	for (size_t i = 0; i < options->peer_count; i++) {
		struct peer *p = add_peer(f, options->peers[i]);
		if (p != NULL)
			p->direct = true;
	}
	return true;
}

static void end(struct fetch *f)
{
	for (size_t i = 0; i < f->peer_count; i++)
		disconnect(f, &f->peers[i]);
	if (f->query != 0) {
		kill(f->query, SIGKILL);
		process_wait(f->query);
		close(f->query_fd);
	}
	checker_stop(&f->checker);
	free(f->peers);
	free(f->taken);
	f->peers = NULL;
}

static void say_complete(const struct fetch *f)
{
	char bytes[PROGRESS_BYTES_TEXT_SIZE], per_second[PROGRESS_BYTES_TEXT_SIZE];
	char wasted[PROGRESS_BYTES_TEXT_SIZE];
	uint64_t fetched = f->file->meta.length - f->start_bytes;
	unsigned senders = 0;

	for (size_t i = 0; i < f->peer_count; i++)
		senders += f->peers[i].chunks > 0;
	log_info("%s: complete and verified: %s in %.1f s (%s/s) from %u peer%s, %s wasted", f->file->path,
		 progress_bytes_text((double)fetched, bytes), f->seconds,
		 progress_bytes_text(f->seconds > 0 ? (double)fetched / f->seconds : 0, per_second),
		 senders, senders == 1 ? "" : "s", progress_bytes_text((double)f->wasted, wasted));
	for (size_t i = 0; i < f->peer_count; i++)
		if (f->peers[i].chunks > 0)
			log_debug("%s: %llu chunks came from it", name_of(&f->peers[i]),
				  (unsigned long long)f->peers[i].chunks);
}

static void show_whole(void *arg, uint64_t bytes)
{
	(void)arg;
	progress_show(bytes, -1);
}

/* Every chunk is right. The hash of the whole can still be another if whoever
 * made the metafile made it wrong. What the checker has not hashed on the way,
 * it hashes now. */
static bool verify_whole(struct fetch *f)
{
	struct datafile *d = f->file;

	progress_begin("verifying", d, f->checker.whole_hashed);
	while (!f->checker.whole_known && !f->failed) {
		take_results(f);
		progress_show(f->checker.whole_hashed, -1);
	}
	progress_end();
	if (f->checker.whole_known && !f->checker.whole_right)
		log_warnx("%s: every chunk is right, but the whole isn't what %s says: "
			  "that metafile contradicts itself", d->path, d->meta.path);
	return f->checker.whole_known && f->checker.whole_right;
}

/* Ends a download that came to an end, one way or the other. */
static bool finish(struct fetch *f)
{
	bool good = is_complete(f) && verify_whole(f);

	if (good && f->start_bytes < f->file->meta.length)
		say_complete(f);
	else if (good)
		log_info("%s: complete and verified: it was here already", f->file->path);
	end(f);
	return good;
}

/* ---- all files ------------------------------------------------------------------- */

/* Finds out what the data file holds already. */
static void check_local(struct datafile *d, const struct fetch_options *options)
{
	char held[PROGRESS_BYTES_TEXT_SIZE];

	if (!d->empty) {
		progress_begin("checking", d, 0);
		if (check_data_file(&d->meta, d->fd, d->held, options->check_workers, show_whole, NULL) < 0)
			log_warn("%s: can't be checked", d->path);
		progress_end();
	}
	atomic_store(&d->held->checked, true);
	uint64_t missing = datafile_missing_bytes(d);
	if (missing == 0 && (options->news >= 0 || d->meta.chunks == 0))
		log_info("%s: complete: all %llu chunks are verified", d->path,
			 (unsigned long long)d->meta.chunks);
	else if (missing > 0 && atomic_load(&d->held->some))
		log_info("%s: %s of it are verified, %s missing", d->path,
			 progress_bytes_text((double)(d->meta.length - missing), held),
			 progress_bytes_text((double)missing, (char[PROGRESS_BYTES_TEXT_SIZE]){0}));
}

int fetch_files(struct datafile files[], size_t count, const struct fetch_options *options)
{
	struct fetch *fetches = calloc(count, sizeof *fetches);
	size_t left = 0, failed = 0;

	if (fetches == NULL)
		fatal("memory");
	srandom((unsigned)time(NULL) ^ (unsigned)getpid() << 8);
	for (size_t i = 0; i < count; i++) {
		check_local(&files[i], options);
		give_news(options);
	}
	for (size_t i = 0; i < count; i++) {
		if (!begin(&fetches[i], &files[i], options))
			failed++;
		else if (fetches[i].peers != NULL)
			left++;
	}
	arrival_ms = clock_ms();
	while (left > 0)
		for (size_t i = 0; i < count; i++) {
			struct fetch *f = &fetches[i];
			if (f->peers == NULL)
				continue;	/* complete from the start, or finished */
			fetch_file(f, left > 1);
			if (is_complete(f) || f->failed) {
				failed += !finish(f);
				left--;
			}
		}
	for (size_t i = 0; i < count; i++)
		close(files[i].fd);
	free(fetches);
	return failed == 0 ? 0 : -1;
}
