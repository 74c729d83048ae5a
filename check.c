/* check.c - reading chunks back and hashing them, several at a time.
 * Run by the workers at the start, and by the checker after that. */
#define _GNU_SOURCE	/* SEEK_DATA, where the system has it */
#include "check.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "log.h"
#include "process.h"

/* Bytes read at a time for one lane. All lanes' buffers fit into the cache
 * nearest to a core that is not tiny, so that hashing reads from there. */
#define LANE_SIZE ((size_t)32 << 10)
#define BUFFER_SIZE (SHA256_LANES_MAX * LANE_SIZE)

static uint8_t buffer[BUFFER_SIZE];

/* Reads len bytes at that offset. 0, or an errno; a file that ends too soon
 * is EIO. */
static int read_at(int fd, uint8_t *to, size_t len, uint64_t offset)
{
	while (len > 0) {
		ssize_t n = pread(fd, to, len, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? errno : EIO;
		to += n;
		len -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

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

/* Hashes the lanes' chunks, each a piece at a time. 0, or an errno. */
static int hash_lanes(struct lanes *lanes, const struct metafile *m, int fd)
{
	const uint8_t *data[SHA256_LANES_MAX];
	uint64_t length = metafile_chunk_length(m, lanes->chunk[0]);

	lanes_start(lanes);
	for (uint64_t done = 0; done < length; ) {
		size_t piece = length - done < LANE_SIZE ? (size_t)(length - done) : LANE_SIZE;
		for (size_t l = 0; l < lanes->count; l++) {
			uint8_t *to = buffer + l * LANE_SIZE;
			int error = read_at(fd, to, piece,
					    metafile_chunk_offset(m, lanes->chunk[l]) + done);
			if (error != 0)
				return error;
			data[l] = to;
		}
		sha256_update_lanes(lanes->ctxs, data, piece, lanes->count);
		done += piece;
	}
	return 0;
}

/* Checks the lanes' chunks and empties the lanes. */
static void check_lanes(struct lanes *lanes, struct metafile *m, int fd, struct held *held)
{
	int error;

	if (lanes->count == 0)
		return;
	error = hash_lanes(lanes, m, fd);
	if (error == 0) {
		lanes_finish(lanes, m, held);
	} else if (lanes->count == 1) {
		lanes->run[0]->error = error;
		lanes->run[0]->bad++;
	} else {	/* one may be readable where another is not */
		for (size_t l = 0; l < lanes->count; l++) {
			struct lanes alone = {
				.count = 1, .chunk = {lanes->chunk[l]}, .run = {lanes->run[l]}};
			check_lanes(&alone, m, fd, held);
		}
	}
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

/* Small chunks: many of them in one read. They end before the last chunk. */
static int check_small(struct run *run, uint64_t first, uint64_t count, struct metafile *m, int fd,
		       struct held *held)
{
	size_t size = (size_t)m->chunk_size;
	struct lanes lanes = {0};
	const uint8_t *data[SHA256_LANES_MAX];

	int error = read_at(fd, buffer, (size_t)count * size, metafile_chunk_offset(m, first));
	if (error != 0)
		return error;
	for (uint64_t i = 0; i < count; i++) {
		data[lanes.count] = buffer + (size_t)i * size;
		lanes.chunk[lanes.count] = first + i;
		lanes.run[lanes.count] = run;
		if (++lanes.count == sha256_lanes() || i == count - 1) {
			lanes_start(&lanes);
			sha256_update_lanes(lanes.ctxs, data, size, lanes.count);
			lanes_finish(&lanes, m, held);
			lanes.count = 0;
		}
	}
	return 0;
}

void check_runs(struct metafile *m, int fd, struct run runs[], size_t count, struct held *held)
{
	struct lanes lanes = {0};
	uint64_t at_once = BUFFER_SIZE / m->chunk_size;

	for (size_t r = 0; r < count; r++) {
		struct run *run = &runs[r];
		uint64_t chunk = run->first, end = run->first + run->count;

		run->bad = 0;
		run->error = 0;
		while (chunk < end) {
			uint64_t some = (end < m->chunks ? end : m->chunks - 1) - chunk;
			if (some > at_once)
				some = at_once;
			if (some == 0)
				some = 1;	/* a large chunk, or the last one */
			if (some == 1 || check_small(run, chunk, some, m, fd, held) != 0)
				for (uint64_t i = 0; i < some; i++)
					add_to_lanes(&lanes, run, chunk + i, m, fd, held);
			chunk += some;
		}
	}
	check_lanes(&lanes, m, fd, held);
}

/* ---- what the file holds at the start ------------------------------------ */

#define BATCH_SIZE (UINT64_C(4) << 20)	/* bytes that a worker takes at a time, at least one chunk */

#ifndef SEEK_DATA
#define SEEK_DATA (-1)	/* no such thing here: lseek fails, and all is taken for data */
#define SEEK_HOLE (-1)
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

/* What a chunk full of zeros hashes to, which takes as long as for any other
 * chunk: it is computed when the first hole is met. */
static const uint8_t *zero_chunk_hash(const struct metafile *m)
{
	static uint8_t hash[SHA256_HASH_SIZE];
	static uint64_t known_size;	/* the chunk size that hash is for, or 0 */
	SHA256_CTX ctx;

	if (known_size != m->chunk_size) {
		memset(buffer, 0, sizeof buffer);
		sha256_init(&ctx);
		for (uint64_t left = m->chunk_size; left > 0; ) {
			size_t piece = left < sizeof buffer ? (size_t)left : sizeof buffer;
			sha256_update(&ctx, buffer, piece);
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

/* Checks the chunks from first up to end: holes, and what lies between. */
static void check_batch(uint64_t first, uint64_t end, struct metafile *m, int fd,
			struct held *held)
{
	uint64_t file_end = metafile_chunk_offset(m, end - 1) + metafile_chunk_length(m, end - 1);

	while (first < end) {
		struct run run = {.first = first};
		uint64_t at = metafile_chunk_offset(m, first);
		uint64_t data = seek_next(fd, SEEK_DATA, at, file_end, at);
		run.count = data / m->chunk_size - first;
		if (run.count > 0) {
			check_hole(&run, m, held);
		} else {
			uint64_t hole = seek_next(fd, SEEK_HOLE, data, file_end, file_end);
			run.count = metafile_chunk_count(hole, m->chunk_size) - first;
			if (run.count == 0)
				run.count = 1;
			check_runs(m, fd, &run, 1, held);
		}
		if (run.error != 0) {
			errno = run.error;
			log_warn("chunks %llu to %llu can't be checked and count as missing",
				 (unsigned long long)run.first,
				 (unsigned long long)(run.first + run.count - 1));
		}
		first += run.count;
	}
}

/* How many chunks, from the first on, the file is long enough for. */
static uint64_t chunks_there(const struct metafile *m, int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return 0;
	return (uint64_t)st.st_size >= m->length ? m->chunks : (uint64_t)st.st_size / m->chunk_size;
}

/* Worker i of n takes every n-th batch, so that all of them move through the
 * file together. It writes the size of each batch to the pipe `done`, unless
 * that is -1. */
static void check_batches(unsigned i, unsigned n, struct metafile *m, int fd,
			  struct held *held, int done)
{
	uint64_t per_batch = m->chunk_size < BATCH_SIZE ? BATCH_SIZE / m->chunk_size : 1;
	uint64_t chunks = chunks_there(m, fd), batches = metafile_chunk_count(chunks, per_batch);

	for (uint64_t batch = i; batch < batches; batch += n) {
		uint64_t first = batch * per_batch;
		uint64_t left = chunks - first, count = left < per_batch ? left : per_batch;
		check_batch(first, first + count, m, fd, held);
		uint64_t bytes = count * m->chunk_size;
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
			log_warnx("a checker ended early: %s; what it didn't check counts as missing", how);
	}
	return 0;
}

bool check_any_match(struct metafile *m, int fd, uint64_t size)
{
	struct held *held = held_new(m->chunks);
	bool match = false;

	if (held == NULL)
		return false;
	for (uint64_t chunk = 0; chunk < m->chunks && !match; chunk++) {
		struct run run = {.first = chunk, .count = 1};
		if (metafile_chunk_offset(m, chunk) + metafile_chunk_length(m, chunk) > size)
			break;
		check_runs(m, fd, &run, 1, held);
		match = held_has(held, chunk);
	}
	held_free(held);
	return match;
}

/* ---- what arrives -------------------------------------------------------- */

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

int checker_start(struct checker *c, struct metafile *m, int fd, struct held *held)
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
	uint8_t hash[SHA256_HASH_SIZE];
	SHA256_CTX ctx;

	sha256_init(&ctx);
	for (uint64_t done = 0; done < m->length; ) {
		size_t piece = m->length - done < BUFFER_SIZE ? (size_t)(m->length - done) : BUFFER_SIZE;
		errno = read_at(fd, buffer, piece, done);
		if (errno != 0)
			return -1;
		sha256_update(&ctx, buffer, piece);
		done += piece;
		progress(arg, done);
	}
	sha256_final(&ctx, hash);
	return memcmp(hash, m->data_hash, SHA256_HASH_SIZE) == 0;
}
