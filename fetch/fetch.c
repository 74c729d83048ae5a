/* fetch.c - the fetcher process.
 *
 *   fetcher ─┬─ checkers, for what a data file holds at the start
 *            ├─ checkers, up to four: hash what has arrived
 *            ├─ writer, with -o -: writes the file to standard output (outlet.h)
 *            ├─ tracker queries, up to sixteen: one exchange, then it exits
 *            └─ finisher, one at a time: hashes a file as a whole, puts it onto the disk
 *
 * One loop around poll, for all files: what becomes of one file is in download.c, which
 * chunk is asked of whom in swarm.c and its neighbours (peers.h), and what becomes of what
 * they send in arrival.c. Here is what the files have to share. */
#include "fetch/fetch.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/exits.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/retry.h"
#include "fetch/checkers.h"
#include "fetch/download.h"
#include "fetch/finisher.h"
#include "fetch/intake.h"
#include "fetch/progress.h"
#include "fetch/share.h"
#include "net/news.h"

#define NEVER INT64_MAX
#define QUERIES_MAX 16		/* to the tracker, at a time */
#define SHARE_MS 1000		/* between two looks at who has how many connections, at most, */
#define SHARE_LEAST_MS 20	/* and at least, while some file wants more than it has */
#define OWN_STALL_MS 50		/* that we take ourselves between two polls, and that no peer answers for */

/* What is kept of each file beside its download. */
struct entry {
	struct share share;
	struct progress_file *shown;
	uint64_t bytes_shown;		/* it counts for so many in what is shown, */
	size_t peers_shown;		/* and for so many peers */
	bool queued;			/* it waits until it can ask the tracker */
};

static struct download *downloads;	/* of all files; and in the same places: */
static struct entry *entries;
static int64_t *due_ms;			/* when it is to be looked after; NEVER if it isn't running. An
					 * array of its own: it is gone through in each round. */
static size_t file_count, running;

static int exit_status;			/* what the first failure makes it */
static int64_t good_ms;			/* when a chunk of any file was last verified, or all began */
static int64_t busy_since_ms;		/* when poll last returned */

/* Files that wait for their turn. */
struct queue {
	size_t file[FILES_MAX];		/* a ring */
	size_t first, count;
};

static void queue_put(struct queue *q, size_t file)
{
	q->file[(q->first + q->count++) % FILES_MAX] = file;
}

static size_t queue_take(struct queue *q)
{
	size_t file = q->file[q->first];

	q->first = (q->first + 1) % FILES_MAX;
	q->count--;
	return file;
}

static void fail_with(int status)
{
	if (exit_status == EXIT_DONE)
		exit_status = status;
}

/* Something has happened to the file. */
static void touch(const struct download *d)
{
	if (d->running)
		due_ms[d - downloads] = 0;
}

/* ---- who is connected to --------------------------------------------------------- */

static struct link {
	struct download *download;
	struct peer *peer;
} links[SWARM_CONNECTED_MAX];
static size_t link_count;

/* Lists anew the connections that the file has. They come last: it is the others' turn to take
 * what --max-download allows. Returns how many they are. */
static size_t list_links(struct download *d)
{
	size_t others = 0;

	for (size_t i = 0; i < link_count; i++)
		if (links[i].download != d)
			links[others++] = links[i];
	link_count = others;
	for (size_t i = 0; i < d->swarm.count && d->running && link_count < SWARM_CONNECTED_MAX; i++)
		if (connection_is_open(&d->swarm.peers[i].connection))
			links[link_count++] = (struct link){d, &d->swarm.peers[i]};
	return link_count - others;
}

static int64_t shared_ms;		/* when they were last shared out */
static bool share_soon;			/* a file wants more connections than it may have, or one has ended */

/* When to share them out anew. */
static int64_t share_due_ms(void)
{
	return share_soon ? shared_ms + SHARE_LEAST_MS : running > 1 ? shared_ms + SHARE_MS : NEVER;
}

/* Notices how many connections the file has and wants. */
static void look_at_links(struct download *d, int64_t now_ms)
{
	struct share *share = &entries[d - downloads].share;

	share->has = list_links(d);
	if (running == 1)
		return;
	share->wants = swarm_wanted_connections(&d->swarm, now_ms);
	share_soon |= share->wants > share->gets;
}

/* A single file may have all connections. */
static void divide_connections(void)
{
	static struct share *shares[FILES_MAX];
	int64_t now = clock_ms();
	size_t count = 0;

	for (size_t i = 0; i < file_count; i++)
		if (downloads[i].running)
			shares[count++] = &entries[i].share;
	share_connections(shares, count, intake_connections(SWARM_CONNECTED_MAX), now);
	for (size_t i = 0; i < file_count; i++)
		if (downloads[i].running && downloads[i].swarm.connected_max != entries[i].share.gets) {
			downloads[i].swarm.connected_max = entries[i].share.gets;
			touch(&downloads[i]);
		}
	share_soon = false;
	shared_ms = now;
}

/* ---- who asks the tracker -------------------------------------------------------- */

static struct download *askers[QUERIES_MAX];
static size_t asker_count;
static struct queue to_ask;

static void wait_to_ask(size_t i)
{
	queue_put(&to_ask, i);
	entries[i].queued = true;
}

/* Those that wait longest ask first. */
static void let_ask(void)
{
	while (to_ask.count > 0 && asker_count < QUERIES_MAX) {
		size_t i = queue_take(&to_ask);
		entries[i].queued = false;
		if (!downloads[i].running)
			continue;
		asking_start_if_due(&downloads[i].asking);
		if (asking_is_under_way(&downloads[i].asking))
			askers[asker_count++] = &downloads[i];
		touch(&downloads[i]);
	}
}

static void forget_askers(void)
{
	size_t count = 0;

	for (size_t i = 0; i < asker_count; i++)
		if (askers[i]->running && asking_is_under_way(&askers[i]->asking))
			askers[count++] = askers[i];
	asker_count = count;
}

/* The tracker names peers to whoever subscribes, too. So peers that began before this one
 * are known when it has something for them. */
static void read_subscription(int news)
{
	static struct subscription_answer answer;

	if (read(news, &answer, sizeof answer) != sizeof answer || answer.file >= file_count ||
	    answer.count > TRACKER_ENTRIES_MAX || !downloads[answer.file].running)
		return;
	asking_take_names(&downloads[answer.file].asking, answer.entries, answer.count);
	touch(&downloads[answer.file]);
}

/* ---- checkers ---------------------------------------------------------------------- */

/* What becomes known of a file that has failed meanwhile is of no use to it. */
static void take_checked(const struct run *run)
{
	if (run->file >= file_count || !downloads[run->file].running)
		return;
	arrival_take_result(&downloads[run->file].arrival, run);
	touch(&downloads[run->file]);
}

static void lose_checker(void)
{
	for (size_t i = 0; i < file_count; i++)
		if (downloads[i].running) {
			arrival_lost_checker(&downloads[i].arrival);
			touch(&downloads[i]);
		}
}

/* ---- what is shown ------------------------------------------------------------------- */

static struct progress_file *shown;	/* those that were begun */
static size_t shown_count;
static uint64_t shown_bytes;		/* that are held, and */
static size_t shown_peers;		/* connected to, of all of these */

/* Counts what the file has now. */
static void count_in(const struct download *d)
{
	struct entry *entry = &entries[d - downloads];
	uint64_t bytes = download_held_bytes(d);
	size_t peers = d->running ? swarm_connected(&d->swarm) : 0;

	shown_bytes += bytes - entry->bytes_shown;
	shown_peers += peers - entry->peers_shown;
	entry->bytes_shown = bytes;
	entry->peers_shown = peers;
}

/* ---- what has stopped ---------------------------------------------------------------- */

static struct queue to_finish;
static struct download *finishing;	/* what the finisher is at, or NULL */
static struct finisher finisher = {.from = -1};

static void end(struct download *d, int finished)
{
	progress_end();
	fail_with(download_end(d, clock_ms(), finished));
}

/* What the finisher does is shown once nothing else is. */
static void show_finishing(void)
{
	if (running == 0 && finisher.from >= 0)
		progress_begin_one(finisher.whole ? "verifying" : "syncing", finishing->file, finisher.hashed);
}

/* One is finished after the other: together, they would read the disk in turns. */
static void finish_stopped(void)
{
	while (finishing != NULL || to_finish.count > 0) {
		if (finishing == NULL) {
			finishing = &downloads[queue_take(&to_finish)];
			bool whole = finishing->options->verify_whole && finishing->status == EXIT_DONE;
			finisher_begin(&finisher, finishing->file, whole);
			show_finishing();
		}
		if (finisher.from >= 0)
			return;
		end(finishing, finisher.status);
		finisher_end(&finisher);
		finishing = NULL;
	}
}

/* Nothing more is to come for this file. */
static void stop(struct download *d)
{
	size_t i = (size_t)(d - downloads);

	download_stop(d, clock_ms());
	due_ms[i] = NEVER;
	entries[i].shown->wanted = NULL;
	share_soon = true;
	forget_askers();
	list_links(d);
	count_in(d);
	queue_put(&to_finish, i);
	if (--running == 0)
		show_finishing();
}

static void show(void)
{
	if (running > 0)
		progress_show(shown_bytes, (int)shown_peers);
	else
		progress_checked(NULL, finisher.hashed);
}

/* With -o - there is one file. */
static struct outlet *outlet_of_first(void)
{
	return &downloads[0].outlet;
}

/* ---- the loop ------------------------------------------------------------------------ */

/* What is polled for. A place that isn't used has the descriptor -1, which poll passes
 * over. */
enum {NEWS, OUTLET, FINISHER, CHECKERS, QUERIES = CHECKERS + CHECKERS_MAX,
      PLACES = QUERIES + QUERIES_MAX + SWARM_CONNECTED_MAX};

struct polled {
	struct pollfd place[PLACES];
	size_t links;		/* the first place of a connection; they are in the order of the list */
	nfds_t count;
};

static struct pollfd poll_link(const struct link *link, short reads, int64_t now_ms)
{
	const struct connection *c = &link->peer->connection;
	bool sends = c->connecting || (c->out_used > 0 && link->peer->rest_until_ms <= now_ms);
	short events = sends ? reads | POLLOUT : reads;

	return (struct pollfd){.fd = events != 0 ? c->fd : -1, .events = events};
}

static void poll_for_all(struct polled *polled, int news)
{
	struct pollfd *place = polled->place;
	int64_t now = clock_ms();
	short reads = intake_allowed(now) > 0 ? POLLIN : 0;

	place[NEWS] = (struct pollfd){.fd = news, .events = POLLIN};
	place[OUTLET] = (struct pollfd){.fd = outlet_of_first()->from, .events = POLLIN};
	place[FINISHER] = (struct pollfd){.fd = finisher.from, .events = POLLIN};
	checkers_poll(&place[CHECKERS]);
	polled->count = QUERIES;
	for (size_t i = 0; i < asker_count; i++)
		place[polled->count++] = (struct pollfd){.fd = askers[i]->asking.query.fd, .events = POLLIN};
	polled->links = polled->count;
	for (size_t i = 0; i < link_count; i++)
		place[polled->count++] = poll_link(&links[i], reads, now);
}

static void excuse_all(int64_t ms, int64_t now_ms)
{
	good_ms = clock_earlier(good_ms + ms, now_ms);
	for (size_t i = 0; i < link_count; i++)
		connection_excuse(&links[i].peer->connection, ms, now_ms);
}

/* The time that this process has spent since poll returned, writing to a slow disk or
 * waiting for a checker, is no peer's silence. */
static void excuse_peers(void)
{
	int64_t now = clock_ms(), ms = now - busy_since_ms;

	busy_since_ms = now;
	if (ms >= OWN_STALL_MS)
		excuse_all(ms, now);
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
	return ready;
}

/* When something must be done even if nothing comes. */
static int64_t next_event_ms(const struct fetch_options *options)
{
	int64_t now = clock_ms(), next = now + 60000;

	next = progress_next_ms(next);
	next = intake_next_ms(now, next);
	next = clock_earlier(next, share_due_ms());
	if (options->give_up_s > 0 && running > 0)
		next = clock_earlier(next, good_ms + (int64_t)options->give_up_s * 1000);
	for (size_t i = 0; i < file_count; i++)
		next = clock_earlier(next, due_ms[i]);
	return next;
}

/* Waits for something to come. Returns whether *polled tells what. What waits because of the
 * limit to what comes in is not late. */
static bool wait_for_events(struct polled *polled, const struct fetch_options *options)
{
	int64_t begun_ms = clock_ms();
	bool paused = intake_allowed(begun_ms) == 0;

	poll_for_all(polled, options->news);
	int ready = listen_to_all(polled, clock_poll_timeout(next_event_ms(options)));
	busy_since_ms = clock_ms();
	if (paused)
		excuse_all(busy_since_ms - begun_ms, busy_since_ms);
	return ready > 0;
}

static void handle_link(const struct link *link, short revents)
{
	if (revents == 0 || link->download->arrival.failed || !connection_is_open(&link->peer->connection))
		return;
	download_handle(link->download, link->peer, revents, clock_ms());
	touch(link->download);
	excuse_peers();
}

static void wait_and_handle(const struct fetch_options *options)
{
	struct polled polled;
	bool came = wait_for_events(&polled, options);

	if (outlet_waits(outlet_of_first()))
		good_ms = clock_ms();	/* it is no peer's fault that nothing has arrived */
	if (came) {
		if (polled.place[NEWS].revents != 0)
			read_subscription(options->news);
		if (polled.place[OUTLET].revents != 0) {
			download_read_outlet(&downloads[0]);
			touch(&downloads[0]);
		}
		if (polled.place[FINISHER].revents != 0)
			finisher_read(&finisher);
		checkers_take(&polled.place[CHECKERS]);
		for (size_t i = 0; i < asker_count; i++)
			if (polled.place[QUERIES + i].revents != 0) {
				asking_read(&askers[i]->asking);
				touch(askers[i]);
			}
		forget_askers();
		for (size_t i = 0; i < link_count; i++)
			handle_link(&links[i], polled.place[polled.links + i].revents);
	}
	excuse_peers();
}

static void look_after(size_t i)
{
	struct download *d = &downloads[i];
	int64_t now = clock_ms();

	bool asks = download_go_on(d, now);
	if (d->good_ms > good_ms)
		good_ms = d->good_ms;
	if (download_is_over(d)) {
		stop(d);
		return;
	}
	count_in(d);
	look_at_links(d, now);
	if (asks && !entries[i].queued)
		wait_to_ask(i);
	due_ms[i] = download_next_ms(d, now, now + 60000);
	if (!entries[i].queued)
		due_ms[i] = asking_next_ms(&d->asking, due_ms[i]);
}

static bool gives_up(const struct fetch_options *options)
{
	return options->give_up_s > 0 && clock_ms() - good_ms >= (int64_t)options->give_up_s * 1000;
}

static void give_up_all(void)
{
	for (size_t i = 0; i < file_count; i++)
		if (downloads[i].running) {
			download_give_up(&downloads[i]);
			touch(&downloads[i]);
		}
}

/* Does what is due for each file, and for all of them together. */
static void look_after_all(const struct fetch_options *options)
{
	int64_t now = clock_ms();

	for (size_t i = 0; i < file_count; i++)
		if (due_ms[i] <= now)
			look_after(i);
	if (running > 0 && gives_up(options))
		give_up_all();
	finish_stopped();
	let_ask();
	if (now >= share_due_ms())
		divide_connections();
}

static void fetch_all(const struct fetch_options *options)
{
	good_ms = busy_since_ms = clock_ms();
	if (running > 0)
		progress_begin("downloading", shown, shown_count, shown_bytes);
	divide_connections();
	look_after_all(options);
	while (running > 0 || finishing != NULL) {
		show();
		wait_and_handle(options);
		look_after_all(options);
	}
	progress_end();
}

/* ---- from beginning to end ------------------------------------------------------------ */

static void begin_all(struct datafile files[], const struct fetch_options *options)
{
	for (size_t i = 0; i < file_count; i++) {
		int status = download_begin(downloads, i, files, options);
		fail_with(status);
		due_ms[i] = downloads[i].running ? 0 : NEVER;
		running += downloads[i].running;
		if (status == EXIT_DONE && !downloads[i].running)
			queue_put(&to_finish, i);
	}
	for (size_t i = 0; i < file_count; i++) {
		struct download *d = &downloads[i];
		if (!d->running)
			continue;
		download_start(d, clock_ms());
		entries[i].share.turn = i;
		entries[i].shown = &shown[shown_count++];
		*entries[i].shown = (struct progress_file){
			.file = d->file, .wanted = d->file->temporary ? NULL : &d->swarm.choice.wanted,
		};
		count_in(d);
	}
}

int fetch_files(struct datafile files[], size_t count, const struct fetch_options *options)
{
	downloads = memory_unforked(count * sizeof *downloads);	/* of many files, they are large */
	entries = calloc(count, sizeof *entries);
	due_ms = calloc(count, sizeof *due_ms);
	shown = calloc(count, sizeof *shown);
	if (downloads == NULL || entries == NULL || due_ms == NULL || shown == NULL)
		fatal("no memory for %zu files", count);
	file_count = count;
	intake_limit(options->max_download);
	srandom((unsigned)time(NULL) ^ (unsigned)getpid() << 8);
	for (size_t i = 0; i < count; i++)
		download_check(&files[i], options);
	begin_all(files, options);
	checkers_begin(files, options->check_workers, take_checked, lose_checker);
	fetch_all(options);
	checkers_end();
	munmap(downloads, count * sizeof *downloads);
	free(entries);
	free(due_ms);
	free(shown);
	return exit_status;
}
