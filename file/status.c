/* status.c - what a script reads of a running peer. */
#include "file/status.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/exits.h"
#include "base/format.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/retry.h"

#define PERIOD_MS 1000
#define RATE_LOOKS 4		/* periods that the rate is taken over */
#define TEXT_SIZE 65536		/* of a block; files that don't fit are left out */
#define STREAM_SIZE 4096	/* the same, for what may be a pipe: it takes that much at once */

static const char *path;	/* NULL: there is no --status, or another process writes */
static bool is_stream;
static pid_t writer;
static const struct datafile *files;
static size_t file_count;
static unsigned clients;
static uint64_t sent;
static int64_t next_ms;
static bool said_trouble;
static volatile sig_atomic_t ended;

/* Written by the fetcher, too. */
static struct shared {
	atomic_int state;
	atomic_uint peers;
	_Atomic uint64_t checked;
} *shared;

/* What was held at the last looks: a ring. */
static struct { int64_t at_ms; uint64_t bytes; } look[RATE_LOOKS];
static unsigned looks;

/* ---- the text: by functions that a signal handler may call --------------------- */

struct text {
	size_t used, max;
	char bytes[TEXT_SIZE];
};

static void add_text(struct text *t, const char *s)
{
	size_t length = strlen(s);

	if (length <= t->max - t->used) {
		memcpy(t->bytes + t->used, s, length);
		t->used += length;
	}
}

static void add_number(struct text *t, uint64_t n)
{
	char digits[24];

	*format_digits(digits, n, 1) = '\0';
	add_text(t, digits);
}

static void add_line(struct text *t, const char *key, uint64_t value)
{
	add_text(t, key);
	add_text(t, "=");
	add_number(t, value);
	add_text(t, "\n");
}

static uint64_t bytes_held(const struct datafile *d)
{
	return datafile_held_bytes(d, held_count(d->held));
}

static void add_file_key(struct text *t, size_t i, const char *key)
{
	add_text(t, "file.");
	add_number(t, i);
	add_text(t, key);
}

static void add_file(struct text *t, size_t i)
{
	const struct datafile *d = &files[i];
	size_t before = t->used;
	bool complete = held_count(d->held) == d->meta.chunks;

	add_file_key(t, i, ".path=");
	size_t start = t->used;
	add_text(t, d->path);
	for (size_t at = start; at < t->used; at++)
		if ((unsigned char)t->bytes[at] < ' ' || t->bytes[at] == 0x7f)
			t->bytes[at] = '?';
	add_text(t, "\n");
	add_file_key(t, i, ".state=");
	add_text(t, atomic_load(d->lost) ? "lost\n" : complete ? "complete\n" : "incomplete\n");
	add_file_key(t, i, ".bytes");
	add_line(t, "", bytes_held(d));
	add_file_key(t, i, ".length");
	add_line(t, "", d->meta.length);
	if (t->max - t->used < 64)	/* it was cut, or nearly */
		t->used = before;
}

static const char *state_text(int exit_status)
{
	static const char *const states[] = {
		"starting", "checking", "downloading", "verifying", "complete", "failed"};

	switch (exit_status) {
	case -1: return states[atomic_load(&shared->state) % 6];
	case EXIT_DONE: return "complete";
	case EXIT_GAVE_UP: return "gave-up";
	case EXIT_INTERRUPTED: return "interrupted";
	default: return "failed";
	}
}

/* Bytes a second over the last looks. */
static uint64_t rate_of(uint64_t bytes, int64_t now_ms)
{
	unsigned oldest = looks < RATE_LOOKS ? 0 : looks % RATE_LOOKS;

	if (looks == 0 || now_ms <= look[oldest].at_ms || bytes < look[oldest].bytes)
		return 0;
	return (uint64_t)((double)(bytes - look[oldest].bytes) * 1000 / (double)(now_ms - look[oldest].at_ms));
}

/* exit_status: -1 while the process goes on. */
static void make_text(struct text *t, int exit_status)
{
	uint64_t bytes = 0, length = 0;
	int64_t now_ms = clock_ms();

	t->used = 0;
	t->max = is_stream ? STREAM_SIZE : TEXT_SIZE;
	for (size_t i = 0; i < file_count; i++) {
		bytes += bytes_held(&files[i]);
		length += files[i].meta.length;
	}
	uint64_t rate = rate_of(bytes, now_ms);
	add_line(t, "time", (uint64_t)time(NULL));
	add_text(t, "state=");
	add_text(t, state_text(exit_status));
	add_text(t, "\n");
	add_line(t, "bytes", bytes);
	add_line(t, "length", length);
	add_line(t, "checked", atomic_load(&shared->checked));
	add_line(t, "rate", rate);
	if (rate > 0 || bytes == length)
		add_line(t, "left", bytes == length ? 0 : (length - bytes) / rate);
	else
		add_text(t, "left=\n");
	add_line(t, "peers", atomic_load(&shared->peers));
	add_line(t, "clients", clients);
	add_line(t, "sent", sent);
	if (exit_status >= 0)
		add_line(t, "exit", (uint64_t)exit_status);
	for (size_t i = 0; i < file_count; i++)
		add_file(t, i);
	add_text(t, "\n");	/* ends the block */
}

/* ---- writing it ----------------------------------------------------------------- */

/* Returns 0, or -1 with errno. Nobody who doesn't read holds this process up. */
static int write_stream(const struct text *t)
{
	bool to_stdout = strcmp(path, "-") == 0;
	int fd = to_stdout ? STDOUT_FILENO : open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	struct pollfd polled = {.fd = fd, .events = POLLOUT};

	if (fd < 0)
		return errno == ENXIO ? 0 : -1;	/* nobody reads the FIFO now */
	if (poll(&polled, 1, 0) == 1 && (polled.revents & POLLOUT))
		(void)!write(fd, t->bytes, t->used);
	if (!to_stdout)
		close(fd);
	return 0;
}

static int replace_file(const struct text *t)
{
	char temporary[PATH_MAX];
	size_t length = strlen(path);

	if (length + 5 > sizeof temporary) {
		errno = ENAMETOOLONG;
		return -1;
	}
	memcpy(temporary, path, length);
	memcpy(temporary + length, ".new", 5);
	int flags = O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
	int fd = retry_open(temporary, flags, 0666);
	if (fd < 0)
		return -1;
	bool good = io_write(fd, t->bytes, t->used) == 0;
	good = close(fd) == 0 && good;
	if (good && rename(temporary, path) == 0)
		return 0;
	int error = errno;
	unlink(temporary);
	errno = error;
	return -1;
}

static int write_block(struct text *t, int exit_status)
{
	make_text(t, exit_status);
	return is_stream ? write_stream(t) : replace_file(t);
}

/* For exit by fatal: what else calls status_end. */
static void end_at_exit(void)
{
	status_end(EXIT_UNABLE);
}

void status_open(const char *status_path)
{
	static struct text text;
	struct stat st;

	is_stream = strcmp(status_path, "-") == 0;
	if (!is_stream && stat(status_path, &st) == 0 && !S_ISREG(st.st_mode)) {
		if (!S_ISFIFO(st.st_mode) && !S_ISCHR(st.st_mode))
			fatalx("%s: neither a regular file nor a FIFO", status_path);
		is_stream = true;
	}
	if (!is_stream && lstat(status_path, &st) == 0 && S_ISLNK(st.st_mode))
		fatalx("%s: a symbolic link; it is not replaced", status_path);
	shared = memory_shared(sizeof *shared);
	if (shared == NULL)
		fatal("no memory for the status");
	path = status_path;
	writer = getpid();
	if (write_block(&text, -1) < 0) {
		path = NULL;
		fatal("%s", status_path);
	}
	atexit(end_at_exit);	/* if this fails, a failure may leave no last block */
}

void status_files(const struct datafile status_files[], size_t count)
{
	files = status_files;
	file_count = count;
}

void status_doing(enum status_state state)
{
	if (shared == NULL)
		return;
	atomic_store(&shared->state, (int)state);
	atomic_store(&shared->checked, 0);
	atomic_store(&shared->peers, 0);
}

void status_peers(unsigned peers)
{
	if (shared != NULL)
		atomic_store(&shared->peers, peers);
}

void status_checked(uint64_t bytes)
{
	if (shared != NULL)
		atomic_store(&shared->checked, bytes);
}

void status_leave(void)
{
	path = NULL;
}

void status_serving(unsigned clients_now, uint64_t sent_bytes)
{
	if (path == NULL)
		return;		/* else a page would be copied after each fork */
	clients = clients_now;
	sent = sent_bytes;
}

bool status_is_due(void)
{
	return path != NULL && clock_ms() >= next_ms;
}

void status_show(void)
{
	static struct text text;
	int64_t now_ms = clock_ms();
	uint64_t bytes = 0;

	if (!status_is_due())
		return;
	next_ms = now_ms + PERIOD_MS;
	if (write_block(&text, -1) < 0 && !said_trouble) {
		log_warn("%s: the status can't be written", path);
		said_trouble = true;
	}
	for (size_t i = 0; i < file_count; i++)
		bytes += bytes_held(&files[i]);
	look[looks % RATE_LOOKS].at_ms = now_ms;
	look[looks % RATE_LOOKS].bytes = bytes;
	looks++;
}

int64_t status_next_ms(int64_t then_ms)
{
	return path != NULL ? clock_earlier(then_ms, next_ms) : then_ms;
}

void status_end(int exit_status)
{
	struct text text;	/* a signal may have come while the other was written */

	if (path == NULL || ended || getpid() != writer)
		return;
	ended = 1;
	(void)write_block(&text, exit_status);
}
