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
#include "file/window.h"

_Static_assert(SHA256_LANES_MAX <= WINDOWS_MAX, "each lane needs a window");

/* ---- chunks ----------------------------------------------------------------- */

/* The chunks that are hashed at the same time, one in each lane. They have the
 * same length. */
struct lanes {
	size_t count;
	uint64_t chunk[SHA256_LANES_MAX];
	struct run *run[SHA256_LANES_MAX];	/* that the chunk is part of */
	SHA256_CTX ctx[SHA256_LANES_MAX], *ctxs[SHA256_LANES_MAX];
};

static void lanes_start(struct lanes *lanes)
{
	for (size_t l = 0; l < lanes->count; l++) {
		lanes->ctxs[l] = &lanes->ctx[l];
		sha256_init(&lanes->ctx[l]);
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
			lanes->run[l]->error = errno;
		if (expected != NULL && memcmp(hash[l], expected, SHA256_HASH_SIZE) == 0)
			held_add(held, lanes->chunk[l]);
		else
			lanes->run[l]->bad++;
	}
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
		}
		sha256_update_lanes(lanes->ctxs, data, piece, lanes->count);
		done += piece;
	}
	return is_long_enough(lanes, look->m, look->fd) ? 0 : EIO;
}

/* The same, whatever becomes of the file meanwhile. */
static int try_to_hash_lanes(struct lanes *lanes, const struct metafile *m, int fd)
{
	return window_try(hash_lanes, &(struct look){lanes, m, fd});
}

/* One chunk may be readable where another is not, and by reading it one learns
 * why it isn't. */
static void check_one_by_one(const struct lanes *lanes, struct metafile *m, int fd, struct held *held)
{
	bool mapped = window_map(false);

	for (size_t l = 0; l < lanes->count; l++) {
		struct lanes alone = {.count = 1, .chunk = {lanes->chunk[l]}, .run = {lanes->run[l]}};
		int error = try_to_hash_lanes(&alone, m, fd);
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
	if (lanes->count > 0 && try_to_hash_lanes(lanes, m, fd) == 0)
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
		run->error = 0;
		for (uint64_t i = 0; i < run->count; i++)
			add_to_lanes(&lanes, run, run->first + i, m, fd, held);
	}
	check_lanes(&lanes, m, fd, held);
	window_close_all();
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
			run->error = errno;
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

/* Checks the chunks from first up to end: holes, and what lies between. */
static void check_batch(uint64_t first, uint64_t end, struct extent *data, struct metafile *m, int fd,
			struct held *held)
{
	uint64_t file_end = metafile_chunk_offset(m, end - 1) + metafile_chunk_length(m, end - 1);

	while (first < end) {
		struct run run = {.first = first};
		uint64_t at = metafile_chunk_offset(m, first);
		find_data(data, fd, at, m->length);
		if (data->begin > at)
			run.count = smaller(data->begin, file_end) / m->chunk_size - first;
		if (run.count > 0) {
			check_hole(&run, m, held);
		} else {
			run.count = metafile_chunk_count(smaller(data->end, file_end), m->chunk_size) - first;
			if (run.count == 0)
				run.count = 1;
			check_data(&run, data, m, fd, held);
		}
		if (run.error != 0) {
			errno = run.error;
			log_warn("%s: of the chunks %llu to %llu some can't be checked and count as missing",
				 m->path, (unsigned long long)run.first,
				 (unsigned long long)(run.first + run.count - 1));
		}
		first += run.count;
	}
}

/* How many chunks, from the first on, a file of that many bytes is long enough for. */
static uint64_t chunks_there(const struct metafile *m, uint64_t size)
{
	return size >= m->length ? m->chunks : size / m->chunk_size;
}

/* How many chunks each of n workers takes at a time. */
static uint64_t chunks_in_batch(const struct metafile *m, unsigned n)
{
	uint64_t at_once = sha256_lanes(), most = BATCH_MAX / m->chunk_size;
	uint64_t count = BATCH_MIN / m->chunk_size;

	if (count < at_once)
		count = at_once < most ? at_once : most;
	count = smaller(count, metafile_chunk_count(m->chunks, n));
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

/* Worker i of n takes every n-th batch, so that all of them move through the
 * file together. It writes the size of each batch to the pipe `done`, unless
 * that is -1. */
static void check_batches(unsigned i, unsigned n, struct metafile *m, int fd,
			  struct held *held, int done)
{
	uint64_t per_batch = chunks_in_batch(m, n), chunks;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return;
	struct extent data = data_of(&st), ahead = data;
	chunks = chunks_there(m, (uint64_t)st.st_size);
	for (uint64_t first = i * per_batch; first < chunks; first += n * per_batch) {
		uint64_t left = chunks - first, count = left < per_batch ? left : per_batch;
		uint64_t bytes = count * m->chunk_size;
		/* While this batch is hashed the next one is read from the disk, and in
		 * one go, though the lanes look here and there. */
		if (left > n * per_batch) {
			uint64_t next = (first + n * per_batch) * m->chunk_size;
			read_ahead(&ahead, fd, next, next + bytes, m->length);
		}
		check_batch(first, first + count, &data, m, fd, held);
		if (done >= 0 && write(done, &bytes, sizeof bytes) != sizeof bytes)
			break;	/* nobody waits any more */
	}
}

static bool read_token(int fd, uint64_t *value)
{
	ssize_t n;

	while ((n = read(fd, value, sizeof *value)) < 0 && errno == EINTR)
		;
	return n == sizeof *value;
}

int check_data_file(struct metafile *m, int fd, struct held *held, unsigned workers,
		    void (*progress)(void *arg, uint64_t bytes), void *arg)
{
	pid_t pids[CHECK_WORKERS_MAX];
	int done[2];
	unsigned started;
	uint64_t batch, bytes = 0;

	if (workers > m->chunks)
		workers = (unsigned)m->chunks;
	if (pipe(done) < 0)
		return -1;
	for (started = 0; started < workers; started++) {
		pids[started] = process_fork("checker");
		if (pids[started] < 0)
			break;
		if (pids[started] == 0) {
			close(done[0]);
			check_batches(started, workers, m, fd, held, done[1]);
			_exit(EXIT_SUCCESS);
		}
	}
	close(done[1]);
	while (read_token(done[0], &batch)) {
		bytes += batch;
		progress(arg, bytes < m->length ? bytes : m->length);
	}
	close(done[0]);
	for (unsigned i = started; i < workers; i++)	/* no process could be had for these */
		check_batches(i, workers, m, fd, held, -1);
	for (unsigned i = 0; i < started; i++) {
		const char *how = process_wait(pids[i]);
		if (how != NULL)
			log_warnx("%s: a checker ended early: %s; what it didn't check counts as missing",
				  m->path, how);
	}
	return 0;
}

bool check_any_match(struct metafile *m, int fd, uint64_t size)
{
	struct held *held = held_new(m->chunks);
	uint64_t per_batch = chunks_in_batch(m, 1), chunks = chunks_there(m, size);
	struct extent data = {0};
	bool match = false;

	if (held == NULL)
		return false;
	for (uint64_t first = 0; first < chunks && !match; first += per_batch) {
		check_batch(first, smaller(first + per_batch, chunks), &data, m, fd, held);
		match = atomic_load(&held->some);
	}
	held_free(held);
	return match;
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
		if (write(to_fetcher, runs, (size_t)got) != got)
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
	ssize_t n;

	while ((n = write(c->to, run, sizeof *run)) < 0 && errno == EINTR)
		;
	if (n != sizeof *run)
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
