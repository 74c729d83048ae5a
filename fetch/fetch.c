/* fetch.c - the fetcher process.
 *
 *   fetcher ─┬─ checkers, for what the data file holds at the start
 *            ├─ checkers, a few: hash what has arrived
 *            ├─ writer, with -o -: writes the file to standard output (outlet.h)
 *            └─ tracker query: one exchange, then it exits
 *
 * One loop around poll, for one file at a time: which chunk is asked of whom is
 * in swarm.c and its neighbours (peers.h), and what becomes of what they send in arrival.c. */
#include "fetch/fetch.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fetch/arrival.h"
#include "fetch/asking.h"
#include "fetch/outlet.h"
#include "file/space.h"
#include "file/whole.h"
#include "base/clock.h"
#include "base/exits.h"
#include "base/format.h"
#include "base/log.h"
#include "base/retry.h"
#include "fetch/intake.h"
#include "fetch/progress.h"
#include "fetch/swarm.h"
#include "net/news.h"

#define SHARE_MS 1000		/* waited for one file while there are others */
#define HAND_OVER_MS 2		/* without anything more */
#define NOTHING_MS 3000		/* without a peer that can be reached, before that is said */
#define REFUSED_MS 5000		/* in which all peers have nothing for us, before that is said */
#define OWN_STALL_MS 50		/* that we take ourselves between two polls, and that no peer answers for */
#define SENDERS_TOLD 8		/* in the summary, each with its chunks */

/* One file being fetched. */
struct fetch {
	struct datafile *file;
	const struct fetch_options *options;
	struct swarm swarm;
	struct asking asking;
	struct arrival arrival;
	struct outlet outlet;
	bool running;			/* begun, and not yet ended */

	int64_t refused_ms;		/* since when all that can be reached have nothing for us; 0: one has */
	int64_t said_nothing_ms;	/* when it was said that nothing comes, and why; 0: never */
	uint64_t needed;		/* bytes that the disk had to give when it began */
	uint64_t start_bytes;		/* held when it began */
	double seconds;			/* spent on it */
};

static int64_t good_ms;		/* when a chunk of any file was last verified, or all began: a file
				 * that waits for its turn isn't given up for that */
static int64_t busy_since_ms;	/* when poll last returned */

static struct fetch *fetches;	/* of all files */
static size_t fetch_count;
static int exit_status;		/* what the first failure makes it */

static void fail_with(int status)
{
	if (exit_status == EXIT_DONE)
		exit_status = status;
}

/* Tells the serving parent that there is more to serve than before. A full
 * socket is as good: it will look. */
static void give_news(const struct fetch_options *options)
{
	if (options->news >= 0)
		(void)!write(options->news, "", 1);
}

/* The tracker names peers to whoever subscribes, too. So peers that began before this one
 * are known when it has something for them. */
static void read_subscription(int news)
{
	static struct subscription_answer answer;

	if (read(news, &answer, sizeof answer) == sizeof answer && answer.file < fetch_count &&
	    answer.count <= TRACKER_ENTRIES_MAX && fetches[answer.file].running)
		asking_take_names(&fetches[answer.file].asking, answer.entries, answer.count);
}

/* ---- the loop ------------------------------------------------------------------ */

static bool is_complete(const struct fetch *f)
{
	return f->arrival.held == f->file->meta.chunks && f->outlet.done;
}

static uint64_t held_bytes(const struct fetch *f)
{
	return datafile_held_bytes(f->file, f->arrival.held);
}

/* When something must be done even if nothing comes. */
static int64_t next_event_ms(const struct fetch *f, bool share)
{
	int64_t now = clock_ms(), next = now + (share ? SHARE_MS : 60000);

	next = progress_next_ms(next);
	next = intake_next_ms(now, next);
	next = asking_next_ms(&f->asking, next);
	if (f->options->give_up_s > 0)
		next = clock_earlier(next, good_ms + (int64_t)f->options->give_up_s * 1000);
	return swarm_next_event_ms(&f->swarm, now, next);
}

/* What is polled for, each kind in places of its own. A place that isn't used has
 * the descriptor -1, which poll passes over. */
enum {QUERY, NEWS, OUTLET, CHECKERS, CONNECTIONS = CHECKERS + ARRIVAL_CHECKERS_MAX,
      PLACES = CONNECTIONS + SWARM_CONNECTED_MAX};

struct polled {
	struct pollfd place[PLACES];
	nfds_t count;				/* places up to the last connection */
	struct peer *who[SWARM_CONNECTED_MAX];	/* whose the connections are */
};

static nfds_t poll_connections(struct swarm *s, struct pollfd place[SWARM_CONNECTED_MAX],
			       struct peer *who[SWARM_CONNECTED_MAX])
{
	int64_t now = clock_ms();
	short reads = intake_allowed(now) > 0 ? POLLIN : 0;
	nfds_t count = 0;

	for (size_t i = 0; i < s->count && count < SWARM_CONNECTED_MAX; i++) {
		struct peer *p = &s->peers[i];
		const struct connection *c = &p->connection;
		if (!connection_is_open(c))
			continue;
		bool sends = c->connecting || (c->out_used > 0 && p->rest_until_ms <= now);
		who[count] = p;
		short events = sends ? reads | POLLOUT : reads;
		place[count++] = (struct pollfd){.fd = events != 0 ? c->fd : -1, .events = events};
	}
	return count;
}

static void poll_for_all(struct fetch *f, struct polled *polled)
{
	struct pollfd *place = polled->place;

	place[QUERY] = (struct pollfd){.fd = f->asking.query.fd, .events = POLLIN};
	place[NEWS] = (struct pollfd){.fd = f->options->news, .events = POLLIN};
	place[OUTLET] = (struct pollfd){.fd = f->outlet.from, .events = POLLIN};
	for (unsigned i = 0; i < ARRIVAL_CHECKERS_MAX; i++) {
		bool runs = i < f->arrival.checker_count;
		place[CHECKERS + i] = (struct pollfd){.fd = runs ? f->arrival.checkers[i].from : -1,
						      .events = POLLIN};
	}
	polled->count = CONNECTIONS + poll_connections(&f->swarm, place + CONNECTIONS, polled->who);
}

static void excuse_all(struct fetch *f, int64_t ms, int64_t now_ms)
{
	good_ms = clock_earlier(good_ms + ms, now_ms);
	swarm_excuse(&f->swarm, ms, now_ms);
}

/* The time that this process has spent since poll returned, writing to a slow disk or
 * waiting for a checker, is no peer's silence. */
static void excuse_peers(struct fetch *f)
{
	int64_t now = clock_ms(), ms = now - busy_since_ms;

	busy_since_ms = now;
	if (ms < OWN_STALL_MS)
		return;
	excuse_all(f, ms, now);
}

static int listen_to_all(struct polled *polled, int ms)
{
	unsigned failures = 0;
	int ready;

	while ((ready = poll(polled->place, polled->count, ms)) < 0 && errno != EINTR &&
	       retry_after(errno, &failures))
		;
	if (ready < 0 && errno != EINTR)
		fatal("poll");
	busy_since_ms = clock_ms();
	return ready;
}

/* What waits because of the limit to what comes in is not late. */
static int listen_within_limit(struct fetch *f, struct polled *polled, int ms)
{
	int64_t begun_ms = clock_ms();
	bool paused = intake_allowed(begun_ms) == 0;
	int ready = listen_to_all(polled, ms);

	if (paused)
		excuse_all(f, busy_since_ms - begun_ms, busy_since_ms);
	return ready;
}

/* Waits for something to come. Returns whether *polled tells what. If chunks have been
 * written that no checker has yet, it waits only a moment for more, since several are
 * hashed in less time together; then it hands them over. */
static bool wait_for_events(struct fetch *f, struct polled *polled, bool share)
{
	poll_for_all(f, polled);
	if (f->arrival.unchecked.count == 0)
		return listen_within_limit(f, polled, clock_poll_timeout(next_event_ms(f, share))) > 0;
	if (!swarm_is_idle(&f->swarm) && listen_to_all(polled, HAND_OVER_MS) != 0)
		return true;
	arrival_flush(&f->arrival);
	return false;
}

static void handle_connection(struct fetch *f, struct peer *p, short revents)
{
	if (revents == 0 || !connection_is_open(&p->connection))
		return;
	if (p->connection.connecting)
		swarm_connecting_ended(&f->swarm, p, clock_ms());
	else if (revents & (POLLIN | POLLHUP | POLLERR))
		arrival_receive(&f->arrival, p);
}

static void read_outlet(struct fetch *f)
{
	if (outlet_read(&f->outlet) == 0)
		return;
	f->arrival.failed = true;
	f->arrival.error = f->outlet.error;
}

static void wait_and_handle(struct fetch *f, bool share)
{
	struct polled polled;
	bool came = wait_for_events(f, &polled, share);

	if (outlet_waits(&f->outlet))
		good_ms = clock_ms();	/* it is no peer's fault that nothing has arrived */
	if (came) {
		if (polled.place[QUERY].revents != 0)
			asking_read(&f->asking);
		if (polled.place[NEWS].revents != 0)
			read_subscription(f->options->news);
		if (polled.place[OUTLET].revents != 0)
			read_outlet(f);
		for (unsigned i = 0; i < ARRIVAL_CHECKERS_MAX; i++)
			if (polled.place[CHECKERS + i].revents != 0)
				arrival_take_results(&f->arrival, &f->arrival.checkers[i]);
		for (nfds_t i = CONNECTIONS; i < polled.count && !f->arrival.failed; i++) {
			handle_connection(f, polled.who[i - CONNECTIONS], polled.place[i].revents);
			excuse_peers(f);
		}
	}
	excuse_peers(f);
}

/* Nothing is under way: another file may have its turn. Connections over which
 * nothing was asked can wait for the next one. */
static bool is_idle(const struct fetch *f)
{
	return !asking_is_under_way(&f->asking) && arrival_is_idle(&f->arrival) && swarm_is_idle(&f->swarm);
}

static bool gives_up(struct fetch *f)
{
	unsigned seconds = f->options->give_up_s;

	if (seconds == 0 || clock_ms() - good_ms < (int64_t)seconds * 1000)
		return false;
	log_warnx("%s: nothing has arrived for %u s; given up, with %llu bytes missing", f->file->path,
		  seconds, (unsigned long long)datafile_missing_bytes(f->file));
	f->arrival.failed = true;
	fail_with(EXIT_GAVE_UP);
	return true;
}

/* Of the peers that can be reached, all have said of each chunk so far that they don't have it
 * yet. Returns how many they are, and one of them; 0: another has something, or may have. */
static size_t count_refusing(const struct swarm *s, const struct peer **one)
{
	size_t count = 0;

	for (size_t i = 0; i < s->count; i++) {
		const struct peer *p = &s->peers[i];
		if (p->banned || p->failures > 0)
			continue;
		if (p->refusals == 0)
			return 0;
		*one = p;
		count++;
	}
	return count;
}

/* Says that nobody has what is missing, once until something comes. */
static void say_if_nobody_has_it(struct fetch *f)
{
	const struct peer *one = NULL;
	size_t count = count_refusing(&f->swarm, &one);
	int64_t now = clock_ms();

	if (count == 0)
		f->refused_ms = 0;
	else if (f->refused_ms == 0)
		f->refused_ms = now;
	if (count == 0 || now - f->refused_ms < REFUSED_MS || now - good_ms < REFUSED_MS ||
	    (f->said_nothing_ms != 0 && good_ms <= f->said_nothing_ms))
		return;
	log_warnx("%s: nobody has what is missing yet: %s (1 of %zu that could be reached); waiting until one has",
		  f->file->path, swarm_name(one), count);
	f->said_nothing_ms = now;
}

/* Says why nothing comes, once until something does. */
static void say_if_nothing_comes(struct fetch *f)
{
	int64_t now = clock_ms();

	say_if_nobody_has_it(f);
	if (f->swarm.trouble[0] == '\0' || asking_unreachable_ms(&f->asking) < NOTHING_MS ||
	    (f->said_nothing_ms != 0 && good_ms <= f->said_nothing_ms))
		return;
	log_warnx("%s: no peer %s: %s (1 of %zu); tried again until one is", f->file->path,
		  f->swarm.unreachable ? "could be reached" : "is of use now", f->swarm.trouble, f->swarm.count);
	f->said_nothing_ms = now;
}

static void ask_for_all(struct fetch *f)
{
	swarm_manage(&f->swarm, clock_ms());
	asking_start_if_due(&f->asking);
	say_if_nothing_comes(f);
}

/* Fetches until the file is complete, or can't be; or, if it has to share, until
 * there is nothing to do for it but wait. */
static void fetch_file(struct fetch *f, bool share)
{
	excuse_peers(f);
	progress_begin("downloading", f->file, held_bytes(f), f->file->temporary ? NULL : &f->swarm.choice.wanted);
	ask_for_all(f);
	while (!is_complete(f) && !f->arrival.failed && !gives_up(f)) {
		progress_show(held_bytes(f), (int)swarm_connected(&f->swarm));
		uint64_t held = f->arrival.held;
		wait_and_handle(f, share);
		if (held == 0 && f->arrival.held > 0)
			give_news(f->options);	/* from now on this peer is one of those who serve */
		if (f->arrival.held > held) {
			good_ms = clock_ms();
			f->arrival.failed |= outlet_wake(&f->outlet) < 0;
		}
		ask_for_all(f);
		if (share && is_idle(f))
			break;
	}
	arrival_stop_checkers(&f->arrival);
	f->seconds += progress_end();
}

/* ---- one file, from beginning to end ------------------------------------------- */

/* Finds out what the data file holds already. */
static void check_local(struct datafile *d, const struct fetch_options *options)
{
	if (!d->empty) {
		progress_begin("checking", d, d->checked * d->meta.chunk_size, NULL);
		if (datafile_check(d, options->check_workers, false, progress_checked) == 0)
			datafile_end_check(d);
		progress_end();
	}
	datafile_set_checked(d);
}

/* With --verify-whole, hashes the complete file once more, as a whole. False,
 * after a message: that is not what the metafile says. */
static bool is_whole(struct datafile *d, const struct fetch_options *options)
{
	if (!options->verify_whole)
		return true;
	progress_begin("verifying", d, 0, NULL);
	int right = whole_check(&d->meta, d->fd, progress_checked, NULL);
	progress_end();
	if (right == 0) {
		log_warnx("%s: every chunk is right, but the whole isn't what %s says: "
			  "that metafile contradicts itself", d->path, d->meta.path);
		fail_with(EXIT_METAFILE);
	} else if (right < 0) {
		log_warn("%s: can't be read back", d->path);
	}
	return right == 1;
}

static void say_begin(const struct fetch *f)
{
	char here[FORMAT_BYTES_SIZE], missing[FORMAT_BYTES_SIZE];

	format_bytes((double)f->start_bytes, here);
	format_bytes((double)(f->file->meta.length - f->start_bytes), missing);
	if (f->start_bytes > 0)
		log_info("%s: %s of it are verified, %s missing", f->file->path, here, missing);
	else if (!log_on_terminal())
		log_info("%s: %s to fetch", f->file->path, missing);
}

/* Begins with all chunks wanted that aren't held. Returns 0, or -1 with errno. */
static int begin_swarm(struct swarm *s, const struct datafile *d, const struct fetch_options *options)
{
	const struct metafile *m = &d->meta;
	const struct swarm_options o = {
		.self = options->self, .peers = options->peers, .peer_count = options->peer_count,
		.serves = options->news >= 0, .ascending = options->ascending, .time_scale = options->time_scale,
	};

	if (swarm_begin(s, m->length, m->chunk_size, m->cascade_hash, &o) < 0)
		return -1;
	s->connected_max = intake_connections(s->connected_max);
	for (uint64_t chunk = 0; chunk < m->chunks; chunk++)
		if (held_has(d->held, chunk))
			choice_take(&s->choice, chunk);
	return 0;
}

/* Fills in what needn't be fetched. Returns 0; or -1 after a message. */
static int take_local(struct datafile *d, const struct fetch_options *options)
{
	int error = fill_zeros(d);

	for (size_t i = 0; i < options->older_count && error == 0 && datafile_missing_bytes(d) > 0; i++) {
		progress_begin("comparing", d, 0, NULL);
		error = fill_from(d, &options->olders[i], options->check_workers, progress_checked);
		progress_end();
	}
	give_news(options);
	if (error != 0)
		fail_with(exits_for(error));
	return error == 0 ? 0 : -1;
}

/* Whether what is missing fits onto the disk, beside that of the files before. If not, says
 * so. */
static bool fits(struct fetch *f)
{
	uint64_t others = 0, available = space_free(f->file);

	f->needed = space_needed(f->file);
	for (size_t i = 0; i < fetch_count; i++)
		if (&fetches[i] != f && fetches[i].running && fetches[i].file->device == f->file->device)
			others += fetches[i].needed;
	available -= others < available ? others : available;
	if (f->needed <= available)
		return true;
	errno = ENOSPC;
	bool temporary = f->file->temporary;
	log_warn("%s: %llu bytes are %s, which is %llu more than there is room for; nothing is fetched",
		 f->file->place, (unsigned long long)(temporary ? f->needed : datafile_missing_bytes(f->file)),
		 temporary ? "needed" : "missing", (unsigned long long)(f->needed - available));
	fail_with(EXIT_FULL);
	return false;
}

/* Prepares to fetch what is missing. Returns 0, and f->running tells whether
 * anything is; or -1, after a message: it can't be. */
static int begin_fetch(struct fetch *f, struct datafile *d, const struct fetch_options *options)
{
	bool complete = datafile_missing_bytes(d) == 0;

	*f = (struct fetch){.file = d, .options = options};
	if (atomic_load(d->lost))
		return -1;
	if ((!complete || d->too_long) && datafile_begin_write(d) < 0)
		return -1;
	if (!complete && take_local(d, options) < 0)
		return -1;
	complete = datafile_missing_bytes(d) == 0 && !(d->temporary && d->meta.length > 0);
	if (complete) {
		if (!is_whole(d, options))
			return -1;
		if (d->meta.chunks == 1)
			log_info("%s: complete: its one chunk is verified", d->path);
		else
			log_info("%s: complete: all %llu chunks are verified", d->path,
				 (unsigned long long)d->meta.chunks);
		return 0;
	}
	if (!fits(f))
		return -1;
	if (begin_swarm(&f->swarm, d, options) < 0) {
		log_warn("%s: can't be downloaded", d->path);
		return -1;
	}
	if (outlet_begin(&f->outlet, d, &f->swarm.choice) < 0) {
		swarm_end(&f->swarm, clock_ms());
		return -1;
	}
	asking_begin(&f->asking, &(struct asking_options){
		.path = d->path, .tracker_host = options->tracker_host, .tracker_port = options->tracker_port,
		.cascade_hash = d->meta.cascade_hash, .self = options->self, .serves = options->news >= 0,
		.time_scale = options->time_scale,
	}, &f->swarm);
	arrival_begin(&f->arrival, d, &f->swarm, options->check_workers);
	f->start_bytes = held_bytes(f);
	f->running = true;
	say_begin(f);
	return 0;
}

static int by_chunks(const void *a, const void *b)
{
	const struct peer *p = a, *q = b;

	return p->chunks < q->chunks ? 1 : p->chunks > q->chunks ? -1 : 0;
}

/* Writes from whom the chunks came, beginning with the peer that sent most. The
 * peers are sorted for it: nothing is asked of them any more. */
static void tell_senders(struct swarm *s, char *text, size_t size)
{
	uint64_t others = 0;
	size_t used = 0;

	text[0] = '\0';
	for (size_t i = 0; i < s->count; i++)
		if (s->peers[i].twin)
			s->peers[i].chunks = 0;	/* its peer's */
	qsort(s->peers, s->count, sizeof s->peers[0], by_chunks);
	for (size_t i = 0; i < s->count && s->peers[i].chunks > 0; i++)
		if (i < SENDERS_TOLD)
			used += (size_t)snprintf(text + used, size - used, "%s%llu from %s", i == 0 ? "" : ", ",
						 (unsigned long long)s->peers[i].chunks, swarm_name(&s->peers[i]));
		else
			others += s->peers[i].chunks;
	if (others > 0)
		snprintf(text + used, size - used, ", %llu from others", (unsigned long long)others);
}

static void say_complete(struct fetch *f)
{
	char bytes[FORMAT_BYTES_SIZE], per_second[FORMAT_BYTES_SIZE];
	char wasted[FORMAT_BYTES_SIZE], senders[SENDERS_TOLD * (ADDRESS_TEXT_SIZE + 32) + 64];
	double fetched = (double)(f->file->meta.length - f->start_bytes);

	tell_senders(&f->swarm, senders, sizeof senders);
	log_info("%s: complete and verified: %s in %.1f s (%s/s), chunks: %s; %s wasted", f->file->path,
		 format_bytes(fetched, bytes), f->seconds,
		 format_bytes(f->seconds > 0 ? fetched / f->seconds : 0, per_second), senders,
		 format_bytes((double)f->swarm.wasted, wasted));
}

/* Ends a download that came to an end, a good one or not. */
static void finish(struct fetch *f)
{
	bool good = is_complete(f) && !f->arrival.failed && datafile_is_intact(f->file) &&
		    is_whole(f->file, f->options);

	arrival_stop_checkers(&f->arrival);
	outlet_end(&f->outlet);
	good = datafile_close(f->file) == 0 && good;
	if (good)
		say_complete(f);
	else
		fail_with(exits_for(f->arrival.error));
	swarm_end(&f->swarm, clock_ms());
	asking_end(&f->asking);
	f->running = false;
}

/* ---- all files ------------------------------------------------------------------- */

int fetch_files(struct datafile files[], size_t count, const struct fetch_options *options)
{
	size_t running = 0;

	fetches = calloc(count, sizeof *fetches);
	if (fetches == NULL)
		fatal("no memory for %zu files", count);
	fetch_count = count;
	intake_limit(options->max_download);
	srandom((unsigned)time(NULL) ^ (unsigned)getpid() << 8);
	for (size_t i = 0; i < count; i++) {
		check_local(&files[i], options);
		give_news(options);
	}
	for (size_t i = 0; i < count; i++) {
		bool good = begin_fetch(&fetches[i], &files[i], options) == 0;
		if (!fetches[i].running)
			good = datafile_close(&files[i]) == 0 && good;
		if (!good)
			fail_with(EXIT_UNABLE);
		running += fetches[i].running;
	}
	good_ms = busy_since_ms = clock_ms();
	while (running > 0)
		for (size_t i = 0; i < count; i++) {
			struct fetch *f = &fetches[i];
			if (!f->running)
				continue;
			fetch_file(f, running > 1);
			if (is_complete(f) || f->arrival.failed) {
				finish(f);
				running--;
			}
		}
	free(fetches);
	return exit_status;
}
