/* check.c - reading chunks back and hashing them, several at a time.
 * Run by the workers at the start, and by the checker after that. */
#define _GNU_SOURCE	/* SEEK_DATA, where the system has it */
#include "file/check.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/process.h"
#include "base/retry.h"
#include "file/window.h"

_Static_assert(SHA256_LANES_MAX <= WINDOWS_MAX, "each lane needs a window");

/* ---- chunks ----------------------------------------------------------------- */

/* A chunk proves that a file belongs to the metafile if it matches, and if that can't
 * be by chance: it has so many bytes, and they are not one byte repeated. Zeros, and
 * what erased flash memory holds, are in many files; so is a newline at the end. */
#define PROOF_MIN SHA256_HASH_SIZE

/* The chunks that are hashed at the same time, one in each lane. They have the
 * same length. */
struct lanes {
	size_t count;
	uint64_t chunk[SHA256_LANES_MAX];
	struct run *run[SHA256_LANES_MAX];	/* that the chunk is part of */
	uint8_t first[SHA256_LANES_MAX];	/* the chunk's first byte */
	bool telling[SHA256_LANES_MAX];		/* that it matches is proof, as far as that was looked at */
	SHA256_CTX ctx[SHA256_LANES_MAX], *ctxs[SHA256_LANES_MAX];
};

static void lanes_start(struct lanes *lanes)
{
	for (size_t l = 0; l < lanes->count; l++) {
		lanes->ctxs[l] = &lanes->ctx[l];
		sha256_init(&lanes->ctx[l]);
		lanes->telling[l] = false;
	}
}

/* Compares the hashes, and puts each chunk down as held or bad. */
static void lanes_finish(struct lanes *lanes, struct metafile *m, struct held *held)
{
	uint8_t hash[SHA256_LANES_MAX][SHA256_HASH_SIZE], *hashes[SHA256_LANES_MAX];

	for (size_t l = 0; l < lanes->count; l++)
		hashes[l] = hash[l];
	sha256_final_lanes(lanes->ctxs, hashes, lanes->count);
	for (size_t l = 0; l < lanes->count; l++) {
		const uint8_t *expected = metafile_chunk_hash(m, lanes->chunk[l]);
		if (expected == NULL)
			lanes->run[l]->metafile_error = errno;
		if (expected == NULL || memcmp(hash[l], expected, SHA256_HASH_SIZE) != 0) {
			lanes->run[l]->bad++;
			continue;
		}
		held_add(held, lanes->chunk[l]);
		if (lanes->telling[l] && !atomic_load(&held->proven))
			atomic_store(&held->proven, true);
	}
}

static bool is_repeated(uint8_t byte, const uint8_t *bytes, size_t size)
{
	return size == 0 || (bytes[0] == byte && memcmp(bytes, bytes + 1, size - 1) == 0);
}

/* Whether the file goes as far as the lanes' chunks do. In a mapping, zeros follow
 * its end up to the end of the page. */
static bool is_long_enough(const struct lanes *lanes, const struct metafile *m, int fd)
{
	uint64_t end = 0;
	struct stat st;

	for (size_t l = 0; l < lanes->count; l++) {
		uint64_t chunk = lanes->chunk[l];
		uint64_t chunk_end = metafile_chunk_offset(m, chunk) + metafile_chunk_length(m, chunk);
		end = chunk_end > end ? chunk_end : end;
	}
	return fstat(fd, &st) == 0 && (uint64_t)st.st_size >= end;
}

/* Lanes, and where their chunks are. */
struct look {
	struct lanes *lanes;
	const struct metafile *m;
	int fd;
	bool for_proof;		/* one chunk that is proof is still looked for */
};

/* Hashes the lanes' chunks, each a piece at a time. 0, or an errno. */
static int hash_lanes(void *arg)
{
	const struct look *look = arg;
	struct lanes *lanes = look->lanes;
	const uint8_t *data[SHA256_LANES_MAX];
	uint64_t length = metafile_chunk_length(look->m, lanes->chunk[0]), size = window_size();

	lanes_start(lanes);
	for (uint64_t done = 0; done < length; ) {
		size_t piece = (size_t)(length - done < size ? length - done : size);
		for (size_t l = 0; l < lanes->count; l++) {
			uint64_t offset = metafile_chunk_offset(look->m, lanes->chunk[l]) + done;
			data[l] = window_look(look->fd, offset, piece);
			if (data[l] == NULL)
				return errno;
			if (done == 0)
				lanes->first[l] = data[l][0];
			if (look->for_proof && length >= PROOF_MIN && !lanes->telling[l])
				lanes->telling[l] = !is_repeated(lanes->first[l], data[l], piece);
		}
		sha256_update_lanes(lanes->ctxs, data, piece, lanes->count);
		done += piece;
	}
	return is_long_enough(lanes, look->m, look->fd) ? 0 : EIO;
}

/* The same, whatever becomes of the file meanwhile. */
static int try_to_hash_lanes(struct lanes *lanes, const struct metafile *m, int fd, const struct held *held)
{
	return window_try(hash_lanes, &(struct look){lanes, m, fd, !atomic_load(&held->proven)});
}

/* One chunk may be readable where another is not, and by reading it one learns
 * why it isn't. */
static void check_one_by_one(const struct lanes *lanes, struct metafile *m, int fd, struct held *held)
{
	bool mapped = window_map(false);

	for (size_t l = 0; l < lanes->count; l++) {
		struct lanes alone = {.count = 1, .chunk = {lanes->chunk[l]}, .run = {lanes->run[l]}};
		int error = try_to_hash_lanes(&alone, m, fd, held);
		if (error == 0) {
			lanes_finish(&alone, m, held);
		} else {
			lanes->run[l]->error = error;
			lanes->run[l]->bad++;
		}
	}
	window_map(mapped);
}

/* Checks the lanes' chunks and empties the lanes. */
static void check_lanes(struct lanes *lanes, struct metafile *m, int fd, struct held *held)
{
	if (lanes->count > 0 && try_to_hash_lanes(lanes, m, fd, held) == 0)
		lanes_finish(lanes, m, held);
	else if (lanes->count > 0)
		check_one_by_one(lanes, m, fd, held);
	lanes->count = 0;
}

/* Adds a chunk to the lanes; hashes them when they are full, and the last
 * chunk, which may be shorter, by itself. */
static void add_to_lanes(struct lanes *lanes, struct run *run, uint64_t chunk,
			 struct metafile *m, int fd, struct held *held)
{
	if (chunk == m->chunks - 1)
		check_lanes(lanes, m, fd, held);
	lanes->chunk[lanes->count] = chunk;
	lanes->run[lanes->count] = run;
	lanes->count++;
	if (lanes->count == sha256_lanes() || chunk == m->chunks - 1)
		check_lanes(lanes, m, fd, held);
}

void check_runs(struct metafile *m, int fd, struct run runs[], size_t count, struct held *held)
{
	struct lanes lanes = {0};

	for (size_t r = 0; r < count; r++) {
		struct run *run = &runs[r];
		run->bad = 0;
		run->error = run->metafile_error = 0;
		for (uint64_t i = 0; i < run->count; i++)
			add_to_lanes(&lanes, run, run->first + i, m, fd, held);
	}
	check_lanes(&lanes, m, fd, held);
	window_close_all();
}

/* Writes to a pipe what it takes as a whole. False: nobody reads it any more. */
static bool write_whole(int fd, const void *bytes, size_t size)
{
	unsigned failures = 0;
	ssize_t n;

	while ((n = write(fd, bytes, size)) < 0 && retry_after(errno, &failures))
		;
	return n == (ssize_t)size;
}

/* ---- what the file holds at the start ------------------------------------ */

/* Bytes that a worker takes at a time: at least this, or as many chunks as are
 * hashed at once, as far as those aren't more than the other; but at least one. */
#define BATCH_MIN (UINT64_C(4) << 20)
#define BATCH_MAX (UINT64_C(64) << 20)

#ifndef SEEK_DATA
#define SEEK_DATA (-1)	/* no such thing here: lseek fails, and all is taken for data */
#define SEEK_HOLE (-1)
#endif
#ifndef POSIX_FADV_WILLNEED
#define POSIX_FADV_WILLNEED 0	/* OpenBSD and macOS have no such call */
#define posix_fadvise(fd, offset, size, advice) ((void)0)
#endif

/* Where the next data (or hole) begins, at offset or after it; end if there is
 * none before, or fallback where the system can't tell. */
static uint64_t seek_next(int fd, int whence, uint64_t offset, uint64_t end, uint64_t fallback)
{
	off_t at = lseek(fd, (off_t)offset, whence);

	if (at < 0)
		return errno == ENXIO ? end : fallback;
	return (uint64_t)at < end ? (uint64_t)at : end;
}

/* Where data lies in the file: from begin up to end there is no hole. */
struct extent {
	uint64_t begin, end;
};

/* Finds the data that `at` lies in, or else the next. What was found last is not
 * looked for again: a file system may go through all of it. */
static void find_data(struct extent *data, int fd, uint64_t at, uint64_t length)
{
	if (at >= data->begin && at < data->end)
		return;
	data->begin = seek_next(fd, SEEK_DATA, at, length, at);
	data->end = data->begin < length ? seek_next(fd, SEEK_HOLE, data->begin, length, length) : length;
}

#define BLOCK_SIZE 512	/* what st_blocks counts, wherever there is SEEK_HOLE */

/* What is known of a file's data before looking for it, which may take long: there
 * are no holes in a file that has all its blocks. If it had some all the same, they
 * would be hashed like data. */
static struct extent data_of(const struct stat *st)
{
	uint64_t size = (uint64_t)st->st_size, blocks = (uint64_t)st->st_blocks;

	return (struct extent){.end = blocks >= (size + BLOCK_SIZE - 1) / BLOCK_SIZE ? size : 0};
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* What a chunk full of zeros hashes to, which takes as long as for any other
 * chunk: it is computed when the first hole is met. */
static const uint8_t *zero_chunk_hash(const struct metafile *m)
{
	static const uint8_t zeros[4096];
	static uint8_t hash[SHA256_HASH_SIZE];
	static uint64_t known_size;	/* the chunk size that hash is for, or 0 */
	SHA256_CTX ctx;

	if (known_size != m->chunk_size) {
		sha256_init(&ctx);
		for (uint64_t left = m->chunk_size; left > 0; ) {
			size_t piece = left < sizeof zeros ? (size_t)left : sizeof zeros;
			sha256_update(&ctx, zeros, piece);
			left -= piece;
		}
		sha256_final(&ctx, hash);
		known_size = m->chunk_size;
	}
	return hash;
}

/* Checks chunks that lie in a hole, each of the full size. */
static void check_hole(struct run *run, struct metafile *m, struct held *held)
{
	for (uint64_t chunk = run->first; chunk < run->first + run->count; chunk++) {
		const uint8_t *expected = metafile_chunk_hash(m, chunk);
		if (expected == NULL)
			run->metafile_error = errno;
		else if (memcmp(zero_chunk_hash(m), expected, SHA256_HASH_SIZE) == 0)
			held_add(held, chunk);
	}
}

/* Checks chunks that lie in that data, and maybe beyond its ends. Looking at a hole
 * through a mapping would make a tmpfs fill it: what may lie in one is read. */
static void check_data(struct run *run, const struct extent *data, struct metafile *m, int fd,
		       struct held *held)
{
	uint64_t last = run->first + run->count - 1;
	uint64_t end = metafile_chunk_offset(m, last) + metafile_chunk_length(m, last);
	bool beyond = data->begin > metafile_chunk_offset(m, run->first) || data->end < end;
	bool mapped = beyond && window_map(false);

	check_runs(m, fd, run, 1, held);
	if (beyond)
		window_map(mapped);
}

/* How many chunks, from the first on, a file of that many bytes is long enough for. */
static uint64_t chunks_there(const struct metafile *m, uint64_t size)
{
	return size >= m->length ? m->chunks : size / m->chunk_size;
}

/* How many chunks each of n workers takes at a time. */
static uint64_t chunks_in_batch(uint64_t chunks, uint64_t chunk_size, unsigned n)
{
	uint64_t at_once = sha256_lanes(), most = BATCH_MAX / chunk_size;
	uint64_t count = BATCH_MIN / chunk_size;

	if (count < at_once)
		count = at_once < most ? at_once : most;
	count = smaller(count, metafile_chunk_count(chunks, n));
	return count > 0 ? count : 1;
}

/* Has the system read what lies between those bytes; a hole there would only fill
 * memory with zeros. */
static void read_ahead(struct extent *data, int fd, uint64_t begin, uint64_t end, uint64_t length)
{
	find_data(data, fd, begin, length);
	if (data->begin > begin)
		begin = data->begin;
	end = smaller(data->end, end);
	if (begin < end)
		posix_fadvise(fd, (off_t)begin, (off_t)(end - begin), POSIX_FADV_WILLNEED);
}

/* One check of a file: what its workers have to know. Worker i of n takes every
 * n-th batch, so that all of them move through the file together. */
struct whole {
	struct metafile *m;
	int fd;
	struct held *held;
	const struct check_plan *plan;
	uint64_t first, end;	/* chunks */
	uint64_t per_batch;
	unsigned workers;
};

/* What a worker says of a batch that it has checked. */
struct batch {
	uint32_t worker;
	int32_t metafile_error;	/* or 0 */
	uint64_t bytes;
};

/* What is known of a check so far. */
struct tally {
	uint64_t batches[CHECK_WORKERS_MAX];	/* that each worker has checked */
	uint64_t bytes;
};

static void count_batch(struct tally *t, const struct whole *w, const struct batch *b)
{
	t->batches[b->worker] += b->metafile_error == 0;
	t->bytes += b->bytes;
	if (w->m->error == 0)
		w->m->error = b->metafile_error;
	w->plan->progress(w->plan->arg, smaller(t->bytes, w->m->length));
}

/* Checks the chunks from first up to end: holes, and what lies between. Returns the
 * metafile's error, or 0. */
static int check_batch(const struct whole *w, uint64_t first, uint64_t end, struct extent *data)
{
	struct metafile *m = w->m;
	uint64_t file_end = metafile_chunk_offset(m, end - 1) + metafile_chunk_length(m, end - 1);

	while (first < end) {
		struct run run = {.first = first};
		uint64_t at = metafile_chunk_offset(m, first);
		find_data(data, w->fd, at, m->length);
		if (data->begin > at)
			run.count = smaller(data->begin, file_end) / m->chunk_size - first;
		if (run.count > 0) {
			check_hole(&run, m, w->held);
		} else {
			run.count = metafile_chunk_count(smaller(data->end, file_end), m->chunk_size) - first;
			if (run.count == 0)
				run.count = 1;
			check_data(&run, data, m, w->fd, w->held);
		}
		if (run.metafile_error != 0)
			return run.metafile_error;
		if (run.error != 0) {
			errno = run.error;
			log_warn("%s: of the chunks %llu to %llu some can't be checked and count as missing",
				 w->plan->path, (unsigned long long)run.first,
				 (unsigned long long)(run.first + run.count - 1));
		}
		first += run.count;
	}
	return 0;
}

/* Checks what is worker i's, and writes of each batch to the pipe `done`; or, if that
 * is -1, counts it. */
static void check_batches(const struct whole *w, unsigned i, int done, struct tally *t)
{
	uint64_t size = w->m->chunk_size, step = w->workers * w->per_batch;
	struct batch batch = {.worker = i};
	struct stat st;

	if (fstat(w->fd, &st) < 0)
		return;
	struct extent data = data_of(&st), ahead = data;
	for (uint64_t first = w->first + i * w->per_batch; first < w->end; first += step) {
		uint64_t left = w->end - first, count = smaller(left, w->per_batch);
		if (w->plan->until_proven && atomic_load(&w->held->proven))
			break;
		batch.bytes = count * size;
		/* While this batch is hashed the next one is read from the disk, and in
		 * one go, though the lanes look here and there. */
		if (left > step)
			read_ahead(&ahead, w->fd, (first + step) * size, (first + step) * size + batch.bytes,
				   w->m->length);
		batch.metafile_error = check_batch(w, first, first + count, &data);
		if (done < 0)
			count_batch(t, w, &batch);
		else if (!write_whole(done, &batch, sizeof batch))
			break;
		if (batch.metafile_error != 0)
			break;
	}
}

static bool read_batch(int fd, struct batch *batch)
{
	ssize_t n;

	while ((n = read(fd, batch, sizeof *batch)) < 0 && errno == EINTR)
		;
	return n == sizeof *batch;
}

/* Up to which chunk all are checked. */
static uint64_t checked_up_to(const struct whole *w, const struct tally *t)
{
	uint64_t next = w->end;

	for (unsigned i = 0; i < w->workers; i++)
		next = smaller(next, w->first + (t->batches[i] * w->workers + i) * w->per_batch);
	return next;
}

/* Has worker processes check all batches but those of the workers that can't be
 * had, and waits for them. Returns how many workers there were. */
static unsigned check_with_processes(const struct whole *w, struct tally *tally)
{
	pid_t pids[CHECK_WORKERS_MAX];
	struct batch batch;
	unsigned started;
	int done[2];

	if (pipe(done) < 0)
		return 0;
	for (started = 0; started < w->workers; started++) {
		pids[started] = process_fork("checker");
		if (pids[started] < 0)
			break;
		if (pids[started] == 0) {
			close(done[0]);
			check_batches(w, started, done[1], NULL);
			_exit(EXIT_SUCCESS);
		}
	}
	close(done[1]);
	while (read_batch(done[0], &batch))
		count_batch(tally, w, &batch);
	close(done[0]);
	for (unsigned i = 0; i < started; i++) {
		const char *how = process_wait(pids[i]);
		if (how != NULL)
			log_warnx("%s: a checker ended early: %s; what it didn't check counts as missing",
				  w->plan->path, how);
	}
	return started;
}

int check_data_file(struct metafile *m, int fd, struct held *held, const struct check_plan *plan,
		    uint64_t *next)
{
	struct whole w = {.m = m, .fd = fd, .held = held, .plan = plan, .first = *next};
	struct tally tally = {.bytes = *next * m->chunk_size};
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -1;
	w.end = chunks_there(m, (uint64_t)st.st_size);
	if (w.end <= w.first) {
		*next = m->chunks;
		return 0;
	}
	w.workers = (unsigned)smaller(plan->workers, w.end - w.first);
	w.per_batch = chunks_in_batch(w.end - w.first, m->chunk_size, w.workers);
	unsigned started = check_with_processes(&w, &tally);
	for (unsigned i = started; i < w.workers; i++)	/* no process could be had for these */
		check_batches(&w, i, -1, &tally);
	*next = plan->until_proven ? checked_up_to(&w, &tally) : m->chunks;
	errno = m->error;
	return m->error == 0 ? 0 : -1;
}

bool check_is_blank(int fd, uint64_t size)
{
	struct extent data = {0};
	uint8_t buffer[16384];

	for (uint64_t at = 0; at < size; ) {
		find_data(&data, fd, at, size);
		if (data.begin >= size)
			break;
		at = data.begin > at ? data.begin : at;
		ssize_t n = pread(fd, buffer, (size_t)smaller(data.end - at, sizeof buffer), (off_t)at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0 || !is_repeated(0, buffer, (size_t)n))
			return false;
		at += (uint64_t)n;
	}
	return true;
}

/* ---- what arrives -------------------------------------------------------- */

#define CHECKER_NICE 10

static void run_checker(int from_fetcher, int to_fetcher, struct metafile *m, int fd,
			struct held *held)
{
	struct run runs[CHECKER_WAITING_MAX];
	ssize_t got;

	/* Runs are written whole, so that only whole ones are there to read. */
	while ((got = read(from_fetcher, runs, sizeof runs)) > 0 || (got < 0 && errno == EINTR)) {
		if (got < 0)
			continue;
		check_runs(m, fd, runs, (size_t)got / sizeof runs[0], held);
		if (!write_whole(to_fetcher, runs, (size_t)got))
			break;
	}
	_exit(EXIT_SUCCESS);
}

int checker_start(struct checker *c, struct metafile *m, int fd, struct held *held, unsigned checkers)
{
	int to[2], from[2];

	if (pipe(to) < 0)
		return -1;
	if (pipe(from) < 0) {
		close(to[0]);
		close(to[1]);
		return -1;
	}
	c->pid = process_fork("checker");
	if (c->pid == 0) {
		close(to[1]);
		close(from[0]);
		/* What arrives goes first: this takes the CPU time that is left. */
		(void)!nice(CHECKER_NICE);
		window_setup(sha256_lanes(), checkers);
		run_checker(to[0], from[1], m, fd, held);
	}
	close(to[0]);
	close(from[1]);
	c->to = to[1];
	c->from = from[0];
	c->waiting = 0;
	if (c->pid < 0) {
		close(c->to);
		close(c->from);
		return -1;
	}
	return 0;
}

void checker_stop(struct checker *c)
{
	/* Another checker, forked later, may hold a copy of the pipe's end: end
	 * of file can't be relied on. Nothing is lost, as it only reads. */
	kill(c->pid, SIGKILL);
	process_wait(c->pid);
	close(c->to);
	close(c->from);
}

int checker_send(struct checker *c, const struct run *run)
{
	if (!write_whole(c->to, run, sizeof *run))
		return -1;
	c->waiting++;
	return 0;
}

ssize_t checker_receive(struct checker *c, struct run runs[CHECKER_WAITING_MAX])
{
	ssize_t n;

	while ((n = read(c->from, runs, CHECKER_WAITING_MAX * sizeof runs[0])) < 0 && errno == EINTR)
		;
	if (n <= 0 || (size_t)n % sizeof runs[0] != 0)
		return -1;
	n /= (ssize_t)sizeof runs[0];
	c->waiting -= (unsigned)n;
	return n;
}

/* ---- the whole ------------------------------------------------------------ */

int check_whole(const struct metafile *m, int fd, void (*progress)(void *arg, uint64_t bytes), void *arg)
{
	bool mapped = window_map(false);
	uint8_t hash[SHA256_HASH_SIZE];
	int error = 0;
	SHA256_CTX ctx;

	sha256_init(&ctx);
	for (uint64_t done = 0; done < m->length && error == 0; ) {
		size_t piece = (size_t)smaller(m->length - done, window_size());
		const uint8_t *bytes = window_look(fd, done, piece);
		if (bytes == NULL) {
			error = errno;
		} else {
			sha256_update(&ctx, bytes, piece);
			done += piece;
			progress(arg, done);
		}
	}
	window_close_all();
	window_map(mapped);
	sha256_final(&ctx, hash);
	errno = error;
	return error != 0 ? -1 : memcmp(hash, m->data_hash, SHA256_HASH_SIZE) == 0;
}
