/* download.c - one file, from the check of what is there to the message that it is
 * complete; used by the fetcher. */
#include "fetch/download.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/exits.h"
#include "base/format.h"
#include "base/log.h"
#include "fetch/checkers.h"
#include "fetch/progress.h"
#include "file/space.h"

#define HAND_OVER_MS 2		/* without anything more */
#define NOTHING_MS 3000		/* without a peer that can be reached, before that is said */
#define REFUSED_MS 5000		/* in which all peers have nothing for us, before that is said */
#define SENDERS_TOLD 8		/* in the summary, each with its chunks */

/* Tells the serving parent that there is more to serve than before. A full
 * socket is as good: it will look. */
static void give_news(const struct fetch_options *options)
{
	if (options->news >= 0)
		(void)!write(options->news, "", 1);
}

static bool is_complete(const struct download *d)
{
	return d->arrival.held == d->file->meta.chunks && d->outlet.done;
}

uint64_t download_held_bytes(const struct download *d)
{
	return datafile_held_bytes(d->file, d->arrival.held);
}

/* ---- before ---------------------------------------------------------------------- */

void download_check(struct datafile *d, const struct fetch_options *options)
{
	if (!d->empty) {
		progress_begin_one("checking", d, d->checked * d->meta.chunk_size);
		if (datafile_check(d, options->check_workers, false, progress_checked) == 0)
			datafile_end_check(d);
		progress_end();
	}
	datafile_set_checked(d);
	give_news(options);
}

/* Fills in what needn't be fetched. Returns an exit status, after a message unless it is
 * EXIT_DONE. */
static int take_local(struct datafile *d, const struct fetch_options *options)
{
	int error = fill_zeros(d);

	for (size_t i = 0; i < options->older_count && error == 0 && datafile_missing_bytes(d) > 0; i++) {
		progress_begin_one("comparing", d, 0);
		error = fill_from(d, &options->olders[i], options->check_workers, progress_checked);
		progress_end();
	}
	give_news(options);
	return error == 0 ? EXIT_DONE : exits_for(error);
}

/* Whether what is missing of all[i] fits onto the disk, beside that of the files before. If not,
 * says so. */
static bool fits(struct download all[], size_t i)
{
	struct datafile *file = all[i].file;
	uint64_t others = 0, available = space_free(file);

	all[i].needed = space_needed(file);
	for (size_t before = 0; before < i; before++)
		if (all[before].running && all[before].file->device == file->device)
			others += all[before].needed;
	available -= others < available ? others : available;
	if (all[i].needed <= available)
		return true;
	errno = ENOSPC;
	log_warn("%s: %llu bytes are %s, which is %llu more than there is room for; nothing is fetched",
		 file->place,
		 (unsigned long long)(file->temporary ? all[i].needed : datafile_missing_bytes(file)),
		 file->temporary ? "needed" : "missing", (unsigned long long)(all[i].needed - available));
	return false;
}

static void say_begin(const struct download *d)
{
	char here[FORMAT_BYTES_SIZE], missing[FORMAT_BYTES_SIZE];

	format_bytes((double)d->start_bytes, here);
	format_bytes((double)(d->file->meta.length - d->start_bytes), missing);
	if (d->start_bytes > 0)
		log_info("%s: %s of it are verified, %s missing", d->file->path, here, missing);
	else if (!log_on_terminal())
		log_info("%s: %s to fetch", d->file->path, missing);
}

/* Begins with all chunks wanted that aren't held. Returns 0, or -1 with errno. */
static int begin_swarm(struct swarm *s, const struct datafile *d, const struct fetch_options *options)
{
	const struct metafile *m = &d->meta;
	const struct swarm_options o = {
		.self = options->self, .peers = options->peers, .peer_count = options->peer_count,
		.serves = options->news >= 0, .ascending = options->ascending,
		.time_scale = options->time_scale,
	};

	if (swarm_begin(s, m->length, m->chunk_size, m->cascade_hash, &o) < 0)
		return -1;
	for (uint64_t chunk = 0; chunk < m->chunks; chunk++)
		if (held_has(d->held, chunk))
			choice_take(&s->choice, chunk);
	return 0;
}

/* Begins to fetch. Returns an exit status, after a message unless it is EXIT_DONE. */
static int begin_to_ask(struct download *d, uint32_t number)
{
	const struct fetch_options *o = d->options;
	struct datafile *file = d->file;

	if (begin_swarm(&d->swarm, file, o) < 0) {
		log_warn("%s: can't be downloaded", file->path);
		return EXIT_UNABLE;
	}
	if (outlet_begin(&d->outlet, file, &d->swarm.choice) < 0) {
		swarm_end(&d->swarm, clock_ms());
		return EXIT_UNABLE;
	}
	asking_begin(&d->asking, &(struct asking_options){
		.path = file->path, .tracker_host = o->tracker_host, .tracker_port = o->tracker_port,
		.cascade_hash = file->meta.cascade_hash, .self = o->self, .serves = o->news >= 0,
		.time_scale = o->time_scale,
	}, &d->swarm);
	arrival_begin(&d->arrival, file, number, &d->swarm);
	d->start_bytes = download_held_bytes(d);
	d->asked = true;
	d->seen_held = d->arrival.held;
	d->running = true;
	say_begin(d);
	return EXIT_DONE;
}

/* download_begin, but for closing a file that isn't fetched. */
static int begin(struct download all[], size_t i)
{
	struct datafile *file = all[i].file;
	const struct fetch_options *options = all[i].options;
	bool complete = datafile_missing_bytes(file) == 0;
	int status = EXIT_DONE;

	if (atomic_load(file->lost))
		return EXIT_UNABLE;
	if ((!complete || file->too_long) && datafile_begin_write(file) < 0)
		return EXIT_UNABLE;
	if (!complete && (status = take_local(file, options)) != EXIT_DONE)
		return status;
	if (datafile_missing_bytes(file) == 0 && !(file->temporary && file->meta.length > 0))
		return EXIT_DONE;
	return fits(all, i) ? begin_to_ask(&all[i], (uint32_t)i) : EXIT_FULL;
}

int download_begin(struct download all[], size_t i, struct datafile files[],
		   const struct fetch_options *options)
{
	all[i] = (struct download){.file = &files[i], .options = options, .outlet = {.to = -1, .from = -1}};
	int status = begin(all, i);
	if (status != EXIT_DONE)
		datafile_close(&files[i]);	/* it has failed already */
	return status;
}

void download_start(struct download *d, int64_t now_ms)
{
	d->begun_ms = d->good_ms = d->came_ms = now_ms;
}

/* ---- while it runs --------------------------------------------------------------- */

bool download_is_over(const struct download *d)
{
	return is_complete(d) || d->arrival.failed;
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

/* Whether it was said why nothing comes, since something last did. */
static bool said_nothing(const struct download *d)
{
	return d->said_nothing_ms != 0 && d->good_ms <= d->said_nothing_ms;
}

/* When to say that nobody has what is missing. */
static int64_t refused_too_long_ms(const struct download *d)
{
	return (d->refused_ms > d->good_ms ? d->refused_ms : d->good_ms) + REFUSED_MS;
}

/* Says that nobody has what is missing, once until something comes. */
static void say_if_nobody_has_it(struct download *d, int64_t now_ms)
{
	const struct peer *one = NULL;
	size_t count = count_refusing(&d->swarm, &one);

	if (count == 0)
		d->refused_ms = 0;
	else if (d->refused_ms == 0)
		d->refused_ms = now_ms;
	if (count == 0 || now_ms < refused_too_long_ms(d) || said_nothing(d))
		return;
	log_warnx("%s: nobody has what is missing yet: %s (1 of %zu that could be reached); "
		  "waiting until one has", d->file->path, swarm_name(one), count);
	d->said_nothing_ms = now_ms;
}

/* Says why nothing comes, once until something does. */
static void say_if_nothing_comes(struct download *d, int64_t now_ms)
{
	const struct swarm *s = &d->swarm;

	say_if_nobody_has_it(d, now_ms);
	if (s->trouble[0] == '\0' || asking_unreachable_ms(&d->asking) < NOTHING_MS || said_nothing(d))
		return;
	log_warnx("%s: no peer %s: %s (1 of %zu); tried again until one is", d->file->path,
		  s->unreachable ? "could be reached" : "is of use now", s->trouble, s->count);
	d->said_nothing_ms = now_ms;
}

/* Notices what has been verified since the last time. */
static void notice_verified(struct download *d, int64_t now_ms)
{
	if (d->arrival.held == d->seen_held)
		return;
	d->good_ms = now_ms;
	if (d->seen_held == 0)
		give_news(d->options);	/* from now on this peer is one of those who serve */
	d->seen_held = d->arrival.held;
	d->arrival.failed |= outlet_wake(&d->outlet) < 0;
}

/* Written chunks wait only a moment for more, since several are hashed in less time
 * together; and not at all if nothing more is asked for. Returns whether some were checked at
 * once. */
static bool pass_on_written(struct download *d, int64_t now_ms)
{
	bool waits = now_ms - d->came_ms < HAND_OVER_MS && !swarm_is_idle(&d->swarm);

	return d->arrival.unchecked.count > 0 && !waits && arrival_flush(&d->arrival);
}

bool download_go_on(struct download *d, int64_t now_ms)
{
	do {
		notice_verified(d, now_ms);
		if (download_is_over(d))
			return false;
		swarm_manage(&d->swarm, now_ms);
	} while (pass_on_written(d, now_ms));
	bool asks = asking_is_due(&d->asking, now_ms);
	say_if_nothing_comes(d, now_ms);
	return asks;
}

/* When say_if_nothing_comes may have something to say. */
static int64_t next_word_ms(const struct download *d, int64_t now_ms, int64_t next_ms)
{
	if (said_nothing(d))
		return next_ms;
	if (d->swarm.trouble[0] != '\0')
		next_ms = clock_earlier(next_ms, now_ms - asking_unreachable_ms(&d->asking) + NOTHING_MS);
	if (d->refused_ms != 0)
		next_ms = clock_earlier(next_ms, refused_too_long_ms(d));
	return next_ms;
}

int64_t download_next_ms(const struct download *d, int64_t now_ms, int64_t next_ms)
{
	if (d->arrival.unchecked.count > 0)
		next_ms = clock_earlier(next_ms, d->came_ms + HAND_OVER_MS);
	next_ms = next_word_ms(d, now_ms, next_ms);
	return swarm_next_event_ms(&d->swarm, now_ms, next_ms);
}

void download_handle(struct download *d, struct peer *p, short revents, int64_t now_ms)
{
	d->came_ms = now_ms;
	if (p->connection.connecting)
		swarm_connecting_ended(&d->swarm, p, now_ms);
	else if (revents & (POLLIN | POLLHUP | POLLERR))
		arrival_receive(&d->arrival, p);
}

void download_read_outlet(struct download *d)
{
	if (outlet_read(&d->outlet) == 0)
		return;
	d->arrival.failed = true;
	d->arrival.error = d->outlet.error;
}

void download_give_up(struct download *d)
{
	log_warnx("%s: nothing has arrived for %u s; given up, with %llu bytes missing", d->file->path,
		  d->options->give_up_s, (unsigned long long)datafile_missing_bytes(d->file));
	d->arrival.failed = d->given_up = true;
}

/* ---- after ------------------------------------------------------------------------- */

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

	snprintf(text, size, "none fetched");
	for (size_t i = 0; i < s->count; i++)
		if (s->peers[i].twin)
			s->peers[i].chunks = 0;	/* its peer's */
	qsort(s->peers, s->count, sizeof s->peers[0], by_chunks);
	for (const struct peer *p = s->peers; p < s->peers + s->count && p->chunks > 0; p++)
		if (p < s->peers + SENDERS_TOLD)
			used += (size_t)snprintf(text + used, size - used, "%s%llu from %s",
						 used == 0 ? "" : ", ", (unsigned long long)p->chunks,
						 swarm_name(p));
		else
			others += p->chunks;
	if (others > 0)
		snprintf(text + used, size - used, ", %llu from others", (unsigned long long)others);
}

/* Says that all was there. */
static void say_all_there(const struct datafile *d)
{
	if (d->meta.chunks == 1)
		log_info("%s: complete: its one chunk is verified", d->path);
	else
		log_info("%s: complete: all %llu chunks are verified", d->path,
			 (unsigned long long)d->meta.chunks);
}

static void say_complete(struct download *d)
{
	char bytes[FORMAT_BYTES_SIZE], per_second[FORMAT_BYTES_SIZE];
	char wasted[FORMAT_BYTES_SIZE], senders[SENDERS_TOLD * (ADDRESS_TEXT_SIZE + 32) + 64];
	double fetched = (double)(d->file->meta.length - d->start_bytes);

	tell_senders(&d->swarm, senders, sizeof senders);
	log_info("%s: complete and verified: %s in %.1f s (%s/s), chunks: %s; %s wasted", d->file->path,
		 format_bytes(fetched, bytes), d->seconds,
		 format_bytes(d->seconds > 0 ? fetched / d->seconds : 0, per_second), senders,
		 format_bytes((double)d->swarm.wasted, wasted));
}

/* How the download has gone, as an exit status. */
static int find_status(const struct download *d)
{
	if (d->given_up)
		return EXIT_GAVE_UP;
	if (!is_complete(d) || d->arrival.failed || !datafile_is_intact(d->file))
		return exits_for(d->arrival.error);
	return EXIT_DONE;
}

void download_stop(struct download *d, int64_t now_ms)
{
	d->seconds = (double)(now_ms - d->begun_ms) / 1000;
	d->status = find_status(d);
	checkers_close(d->arrival.number);
	outlet_end(&d->outlet);
	asking_end(&d->asking);
	swarm_leave(&d->swarm, now_ms);
	d->running = false;
}

int download_end(struct download *d, int64_t now_ms, int finished)
{
	int status = d->status == EXIT_DONE ? finished : d->status;

	if (datafile_close(d->file) < 0 && status == EXIT_DONE)
		status = EXIT_UNABLE;
	if (status == EXIT_DONE && d->asked)
		say_complete(d);
	else if (status == EXIT_DONE)
		say_all_there(d->file);
	if (d->asked)
		swarm_end(&d->swarm, now_ms);
	return status;
}
