/* check_common.h - what the tests of arrival, checks, checkers, filling, holes, scans and whole
 * files need: a data file with a metafile, forks that fail, and runs of chunks. */
#ifndef CHECK_COMMON_H
#define CHECK_COMMON_H

#include "file/check.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "unit.h"

/* process.c is included, not linked, so that its fork can fail, or its child end at once. */
static pid_t fork_for_test(void);
#define fork fork_for_test
#if defined(__GLIBC__) && !defined(PORTABLE)
#define _Fork fork_for_test
#endif
#include "base/process.c"
#undef fork
#undef _Fork

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)
#define WANT_SIZE (16 * MIB)

/* ---- Faults on demand ---- */

static int forks_that_work = INT_MAX;	/* until none does any more */
static int doomed_fork = -1;		/* this one's child is killed before it does anything, */
static bool all_are_doomed;		/* or each one's; then that is over when fork returns */

/* The child is not reaped. */
static inline void wait_for_death(pid_t pid)
{
	siginfo_t info;

	while (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) < 0 && errno == EINTR)
		;
}

static pid_t fork_for_test(void)
{
	pid_t pid;

	if (forks_that_work == 0) {
		errno = EAGAIN;
		return -1;
	}
	forks_that_work--;
	pid = fork();
	if (pid == 0 && (doomed_fork == 0 || all_are_doomed))
		kill(getpid(), SIGKILL);
	if (pid > 0 && all_are_doomed)
		wait_for_death(pid);
	doomed_fork--;
	return pid;
}

static inline void forks_work_again(void)
{
	forks_that_work = INT_MAX;
	doomed_fork = -1;
	all_are_doomed = false;
}

static inline bool has_children(void)
{
	return waitpid(-1, NULL, WNOHANG) >= 0 || errno != ECHILD;
}

/* ---- A data file and its metafile ---- */

static char data_path[UNIT_PATH_SIZE], meta_path[UNIT_PATH_SIZE];
static uint8_t want[WANT_SIZE];		/* what the metafile promises: hashes of this */
static struct metafile m;
static struct held *held;
static int fd;				/* the data file, for reading and writing */

static inline void put_at(uint64_t offset, const void *bytes, uint64_t size)
{
	if (pwrite(fd, bytes, (size_t)size, (off_t)offset) != (ssize_t)size)
		abort();
}

static inline void set_length(uint64_t length)
{
	if (ftruncate(fd, (off_t)length) < 0)
		abort();
}

static inline void fill_want(void)
{
	uint32_t x = 2463534242;

	for (size_t i = 0; i < sizeof want; i++) {
		x ^= x << 13;
		x ^= x >> 17;
		x ^= x << 5;
		want[i] = (uint8_t)(x >> 11);
	}
}

/* Before all tests. */
static inline void set_up(void)
{
	signal(SIGPIPE, SIG_IGN);	/* as the program has it */
	unit_path(data_path, "data");
	unit_path(meta_path, "data" METAFILE_SUFFIX);
	fill_want();
}

/* Makes and opens both files, for the first bytes of want; the data file holds nothing yet. */
static inline void open_empty(uint64_t length, uint64_t chunk_size)
{
	uint64_t chunks = metafile_chunk_count(length, chunk_size);
	size_t size = METAFILE_HEADER_SIZE + (size_t)chunks * SHA256_HASH_SIZE;
	uint8_t *meta = malloc(size), hash[SHA256_HASH_SIZE];
	const char *why;
	int meta_fd = open(meta_path, O_WRONLY | O_CREAT | O_TRUNC, 0666);

	if (meta == NULL || meta_fd < 0)
		abort();
	unit_hash(want, (size_t)length, hash);
	metafile_encode_header(meta, length, chunk_size, hash);
	for (uint64_t i = 0; i < chunks; i++) {
		uint64_t at = i * chunk_size, left = length - at;
		unit_hash(want + at, (size_t)(left < chunk_size ? left : chunk_size),
			  meta + METAFILE_HEADER_SIZE + i * SHA256_HASH_SIZE);
	}
	if (write(meta_fd, meta, size) != (ssize_t)size || close(meta_fd) < 0)
		abort();
	free(meta);
	fd = open(data_path, O_RDWR | O_CREAT | O_TRUNC, 0666);
	held = held_new(chunks, 0);
	if (fd < 0 || held == NULL || metafile_open(&m, meta_path, &why) < 0)
		abort();
}

static inline void open_full(uint64_t length, uint64_t chunk_size)
{
	open_empty(length, chunk_size);
	put_at(0, want, length);
}

static inline void close_files(void)
{
	close(fd);
	metafile_close(&m);
	held_free(held);
}

static inline void forget_held(void)
{
	held_free(held);
	held = held_new(m.chunks, 0);
	if (held == NULL)
		abort();
}

/* Whether all chunks are held but those from first on, count of them. */
static inline bool all_held_but(uint64_t first, uint64_t count)
{
	for (uint64_t i = 0; i < m.chunks; i++)
		if (held_has(held, i) == (i >= first && i < first + count))
			return false;
	return held_count(held) == m.chunks - count;
}

static inline void spoil(uint64_t chunk)
{
	uint64_t at = metafile_chunk_offset(&m, chunk) + metafile_chunk_length(&m, chunk) / 2;
	uint8_t wrong = want[at] ^ 1;

	put_at(at, &wrong, 1);
}

static inline void mend(uint64_t chunk)
{
	uint64_t at = metafile_chunk_offset(&m, chunk) + metafile_chunk_length(&m, chunk) / 2;

	put_at(at, want + at, 1);
}

/* ---- Runs ---- */

/* Results that were not set would be seen. */
static inline struct run a_run(uint64_t first, uint64_t count)
{
	return (struct run){.first = first, .count = count, .peer = 77, .error = 99, .bad = 99};
}

static inline bool is_run(const struct run *r, uint64_t first, uint64_t count, uint64_t bad, int error)
{
	return r->first == first && r->count == count && r->peer == 77 && r->bad == bad &&
	       r->error == error;
}

#endif
