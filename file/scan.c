/* scan.c - checks all chunks that a data file holds at the start.
 *
 * Several worker processes go through the file together, each checking every n-th batch of
 * chunks. A worker writes a report of each batch to a pipe, which this process reads.
 *
 * Two things are there for speed alone, and left out with PORTABLE. Holes are not read
 * (holes.c). And while a worker hashes a batch, the system is asked to read its next one
 * from the disk, in one go: the lanes look at 16 places in turn, for which a disk with a
 * moving head would have to seek. (On a disk without seek time this gains nothing: 0.95
 * times as fast.) */
#include "file/scan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/process.h"
#include "file/check.h"
#include "file/holes.h"
#include "file/lanes.h"

/* Bytes that a worker takes at a time: at least the minimum, or as many chunks as are
 * hashed at once if that is no more than the maximum; but at least one chunk. */
#define BATCH_MIN (UINT64_C(4) << 20)
#define BATCH_MAX (UINT64_C(64) << 20)

/* One scan: what its workers have to know. */
struct scan {
	struct metafile *m;
	int fd;
	struct held *held;
	const struct scan_plan *plan;
	uint64_t first, end;	/* chunks */
	uint64_t per_batch;	/* chunks */
	unsigned workers;
};

/* What a worker reports of a batch that it has checked. */
struct report {
	uint32_t worker;
	int32_t metafile_error;	/* the errno, or 0 */
	uint64_t bytes;
};

/* What is known of a scan so far. */
struct tally {
	uint64_t batches[SCAN_WORKERS_MAX];	/* that each worker has checked */
	uint64_t bytes;
};

static uint64_t smaller(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* How many chunks, from the first on, a file of that many bytes is long enough for. */
static uint64_t chunks_within(const struct metafile *m, uint64_t size)
{
	return size >= m->length ? m->chunks : size / m->chunk_size;
}

/* ---- one batch ------------------------------------------------------------------ */

/* Asks the system to read the data between these bytes. A hole there would only fill
 * memory with zeros. */
#if defined(POSIX_FADV_WILLNEED) && !defined(PORTABLE)
static void read_ahead(const struct scan *s, struct extent *data, uint64_t begin, uint64_t end)
{
	holes_find_data(data, s->fd, begin, s->m->length);
	if (data->begin > begin)
		begin = data->begin;
	end = smaller(data->end, end);
	if (begin < end)
		posix_fadvise(s->fd, (off_t)begin, (off_t)(end - begin), POSIX_FADV_WILLNEED);
}
#else
static void read_ahead(const struct scan *s, struct extent *data, uint64_t begin, uint64_t end)
{
	(void)s;
	(void)data;
	(void)begin;
	(void)end;
}
#endif

/* Checks chunks that lie in a hole, each of the full size: all are zeros. */
static void check_hole(const struct scan *s, struct run *run)
{
	for (uint64_t chunk = run->first; chunk < run->first + run->count; chunk++) {
		const uint8_t *right_hash = metafile_chunk_hash(s->m, chunk);
		if (right_hash == NULL)
			run->metafile_error = errno;
		else if (memcmp(holes_zero_hash(s->m->chunk_size), right_hash, SHA256_HASH_SIZE) == 0)
			held_add(s->held, chunk);
	}
}

static void warn_unreadable(const struct scan *s, const struct run *run)
{
	errno = run->error;
	log_warn("%s: of the chunks %llu to %llu some can't be checked and count as missing",
		 s->plan->path, (unsigned long long)run->first,
		 (unsigned long long)(run->first + run->count - 1));
}

/* Checks the chunks from first up to end: those in holes, and those between. *data is
 * where data was found last. Returns the metafile's error, or 0. */
static int check_batch(const struct scan *s, uint64_t first, uint64_t end, struct extent *data)
{
	struct metafile *m = s->m;
	uint64_t end_byte = metafile_chunk_offset(m, end - 1) + metafile_chunk_length(m, end - 1);

	while (first < end) {
		struct run run = {.first = first};
		uint64_t at = metafile_chunk_offset(m, first);
		holes_find_data(data, s->fd, at, m->length);
		if (data->begin > at)
			run.count = smaller(data->begin, end_byte) / m->chunk_size - first;
		if (run.count > 0) {
			check_hole(s, &run);
		} else {
			run.count = metafile_chunk_count(smaller(data->end, end_byte), m->chunk_size) - first;
			if (run.count == 0)
				run.count = 1;
			check_runs(m, s->fd, &run, 1, s->held);
		}
		if (run.metafile_error != 0)
			return run.metafile_error;
		if (run.error != 0)
			warn_unreadable(s, &run);
		first += run.count;
	}
	return 0;
}

/* ---- workers -------------------------------------------------------------------- */

/* Adds a report to the tally, and tells the caller of the scan how far it is. */
static void count_report(struct tally *t, const struct scan *s, const struct report *r)
{
	if (r->worker >= s->workers)
		return;		/* no worker of ours says that */
	t->batches[r->worker] += r->metafile_error == 0;
	t->bytes += r->bytes;
	if (s->m->error == 0)
		s->m->error = r->metafile_error;
	s->plan->progress(s->plan->arg, smaller(t->bytes, s->m->length));
}

/* Checks the batches of one worker, and writes a report of each to the pipe `reports`; or,
 * if that is -1, counts it. */
static void check_batches(const struct scan *s, unsigned worker, int reports, struct tally *t)
{
	uint64_t size = s->m->chunk_size, step = s->workers * s->per_batch;
	struct extent data = holes_begin(s->fd, s->m->length), ahead = data;
	struct report report = {.worker = worker};

	for (uint64_t first = s->first + worker * s->per_batch; first < s->end; first += step) {
		uint64_t left = s->end - first, count = smaller(left, s->per_batch);
		if (s->plan->until_proven && atomic_load(&s->held->proven))
			break;
		report.bytes = count * size;
		if (left > step)
			read_ahead(s, &ahead, (first + step) * size, (first + step) * size + report.bytes);
		report.metafile_error = check_batch(s, first, first + count, &data);
		if (reports < 0)
			count_report(t, s, &report);
		else if (io_write(reports, &report, sizeof report) < 0)
			break;
		if (report.metafile_error != 0)
			break;
	}
}

/* Starts worker processes, and reads their reports until all have ended. Returns how many
 * there were: all, unless a process can't be had. */
static unsigned run_workers(const struct scan *s, struct tally *tally)
{
	pid_t pids[SCAN_WORKERS_MAX];
	struct report report;
	unsigned started;
	int reports[2];

	if (pipe(reports) < 0)
		return 0;
	for (started = 0; started < s->workers; started++) {
		pids[started] = process_fork("checker");
		if (pids[started] < 0)
			break;
		if (pids[started] == 0) {
			close(reports[0]);
			check_batches(s, started, reports[1], NULL);
			_exit(EXIT_SUCCESS);
		}
	}
	close(reports[1]);
	while (io_read(reports[0], &report, sizeof report) == sizeof report)
		count_report(tally, s, &report);
	close(reports[0]);
	for (unsigned i = 0; i < started; i++) {
		const char *how = process_wait(pids[i]);
		if (how != NULL)
			log_warnx("%s: a checker ended early: %s; what it didn't check counts as missing",
				  s->plan->path, how);
	}
	return started;
}

/* ---- the scan ------------------------------------------------------------------- */

/* How many chunks each worker takes at a time, if there are `chunks` for all. */
static uint64_t chunks_per_batch(uint64_t chunks, uint64_t chunk_size, unsigned workers)
{
	uint64_t at_once = lanes_best_count(), most = BATCH_MAX / chunk_size;
	uint64_t count = BATCH_MIN / chunk_size;

	if (count < at_once)
		count = at_once < most ? at_once : most;
	count = smaller(count, metafile_chunk_count(chunks, workers));
	return count > 0 ? count : 1;
}

/* The first chunk that some worker has not come to. */
static uint64_t first_unchecked(const struct scan *s, const struct tally *t)
{
	uint64_t first = s->end;

	for (unsigned i = 0; i < s->workers; i++)
		first = smaller(first, s->first + (t->batches[i] * s->workers + i) * s->per_batch);
	return first;
}

int scan_file(struct metafile *m, int fd, struct held *held, const struct scan_plan *plan,
	      uint64_t *next)
{
	struct scan s = {.m = m, .fd = fd, .held = held, .plan = plan, .first = *next};
	struct tally tally = {.bytes = *next * m->chunk_size};
	uint64_t size;

	if (io_file_size(fd, &size) < 0)
		return -1;
	s.end = chunks_within(m, size);
	if (s.end <= s.first) {
		*next = m->chunks;
		return 0;
	}
	s.workers = (unsigned)smaller(plan->workers, s.end - s.first);
	s.per_batch = chunks_per_batch(s.end - s.first, m->chunk_size, s.workers);
	unsigned started = run_workers(&s, &tally);
	for (unsigned i = started; i < s.workers; i++)	/* no process could be had for these */
		check_batches(&s, i, -1, &tally);
	*next = plan->until_proven ? first_unchecked(&s, &tally) : m->chunks;
	errno = m->error;
	return m->error == 0 ? 0 : -1;
}
