/* outlet.c - the writer, and the window that it moves on; used by the fetcher.
 *
 * What was written makes room in the temporary file by being overwritten: its chunks lie there
 * as in a ring. So the bytes have to be copied to standard output. With splice(2) they would
 * still be the file's pages while they wait in a pipe. */
#include "fetch/outlet.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/process.h"
#include "base/retry.h"
#include "base/wait.h"

/* The window: as much as a peer at the other end of a long, fat line is asked for ahead
 * (ahead.c); and where chunks are large, enough of them for some peers to send at a time. */
#define WINDOW_BYTES (UINT64_C(64) << 20)
#define WINDOW_CHUNKS 4

#define PIECE_MAX ((size_t)256 << 10)	/* bytes at a time: they stay in the CPU's cache */

/* What the writer tells. */
struct report {
	uint64_t written;	/* chunks, from the first one on */
	bool closed;		/* standard output took all, and is closed */
	bool unreadable;	/* error is the temporary file's, not standard output's */
	int error;		/* the errno of the failure that ended it, or 0 */
};

/* ---- the writer ------------------------------------------------------------------ */

struct writer {
	const struct datafile *file;
	const uint8_t *zeros;	/* a bit for each chunk that is zeros, and not in the file */
	int to, from;		/* pipes to the fetcher, and from it */
	struct report report;
};

static bool has_bit(const uint8_t *bits, uint64_t i)
{
	return bits[i / 8] >> i % 8 & 1;
}

/* How many chunks, from the next one on, can be written in one piece: held, side by side
 * in the file, and all zeros or none. */
static uint64_t count_ready(const struct writer *w)
{
	const struct metafile *m = &w->file->meta;
	uint64_t first = w->report.written, most = PIECE_MAX / m->chunk_size, count = 0;

	if (most == 0)
		most = 1;
	if (m->ring > 0 && most > m->ring - first % m->ring)
		most = m->ring - first % m->ring;
	while (count < most && first + count < m->chunks && held_has(w->file->held, first + count) &&
	       has_bit(w->zeros, first + count) == has_bit(w->zeros, first))
		count++;
	return count;
}

/* Returns 0, or an errno. */
static int write_bytes(const uint8_t *bytes, size_t size)
{
	unsigned failures = 0;

	while (size > 0) {
		ssize_t n = write(STDOUT_FILENO, bytes, size);
		if (n > 0) {
			bytes += n;
			size -= (size_t)n;
		} else if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
			/* Somebody who shares it has made it non-blocking. */
			if (wait_ready(STDOUT_FILENO, POLLOUT, clock_ms() + 60000) < 0 && errno != ETIMEDOUT)
				return errno;
		} else if (n == 0 || !retry_after(errno, &failures)) {
			return n == 0 ? EIO : errno;
		}
	}
	return 0;
}

/* Writes so many chunks, from the next one on. */
static void write_chunks(struct writer *w, uint64_t count)
{
	static uint8_t buffer[PIECE_MAX];
	const struct metafile *m = &w->file->meta;
	uint64_t first = w->report.written, last = first + count - 1;
	uint64_t offset = metafile_chunk_offset(m, first);
	uint64_t left = (count - 1) * m->chunk_size + metafile_chunk_length(m, last);
	bool zeros = has_bit(w->zeros, first);

	while (left > 0 && w->report.error == 0) {
		size_t piece = left < sizeof buffer ? (size_t)left : sizeof buffer;
		ssize_t n = zeros ? (ssize_t)piece : io_read_at(w->file->fd, buffer, piece, offset);
		if (n < (ssize_t)piece) {
			w->report.error = n < 0 ? errno : EIO;
			w->report.unreadable = true;
			return;
		}
		if (zeros)
			memset(buffer, 0, piece);
		w->report.error = write_bytes(buffer, piece);
		offset += piece;
		left -= piece;
	}
	if (w->report.error == 0)
		w->report.written += count;
}

/* Waits until the fetcher says that more is held; and notices if nobody reads any more. */
static void wait_for_more(struct writer *w)
{
	struct pollfd polled[] = {{.fd = w->from, .events = POLLIN}, {.fd = STDOUT_FILENO}};
	char bytes[64];

	if (poll(polled, 2, -1) < 0)
		return;		/* a signal, or no memory for the moment */
	if (polled[1].revents != 0)
		w->report.error = EPIPE;
	else if (io_read(w->from, bytes, sizeof bytes) <= 0)
		_exit(EXIT_FAILURE);	/* the fetcher has ended */
}

static _Noreturn void run_writer(struct writer *w)
{
	struct report *r = &w->report;

	while (r->error == 0 && !r->closed) {
		uint64_t count = count_ready(w);
		if (count > 0)
			write_chunks(w, count);
		else if (r->written < w->file->meta.chunks)
			wait_for_more(w);
		else if (close(STDOUT_FILENO) == 0)
			r->closed = true;
		else
			r->error = errno;
		if (io_write(w->to, r, sizeof *r) < 0)
			_exit(EXIT_FAILURE);
	}
	_exit(EXIT_SUCCESS);
}

/* ---- beginning and end ------------------------------------------------------------- */

/* Makes a file in the folder, and takes its name away. Returns it, or -1 with errno. */
static int open_unnamed(const char *folder)
{
	size_t size = strlen(folder) + sizeof "/cascade-XXXXXX";
	char *path = malloc(size);

	if (path == NULL)
		return -1;
	snprintf(path, size, "%s/cascade-XXXXXX", folder);
	int fd = mkstemp(path);
	if (fd >= 0 && unlink(path) < 0) {
		int saved = errno;
		close(fd);
		errno = saved;
		fd = -1;
	}
	free(path);
	return fd;
}

int outlet_open(struct datafile *d, const char *metafile_path)
{
	static char place[1024];
	const char *folder = getenv("TMPDIR");

	if (folder == NULL || folder[0] == '\0')
		folder = "/tmp";
	snprintf(place, sizeof place, "%s (TMPDIR, for standard output)", folder);
	int fd = open_unnamed(folder);
	if (fd < 0) {
		log_warn("%s: no temporary file can be made", place);
		d->meta.error = errno;	/* that doesn't make it bad */
		return -1;
	}
	if (datafile_open_temporary(d, metafile_path, fd, "standard output", place) < 0)
		return -1;
	uint64_t room = WINDOW_BYTES / d->meta.chunk_size;
	if (room < WINDOW_CHUNKS)
		room = WINDOW_CHUNKS;
	d->meta.ring = room < d->meta.chunks ? room : 0;
	return 0;
}

/* The window ends there. What comes into it is wanted, unless it is zeros. */
static void move_window(struct outlet *o, uint64_t end)
{
	for (; o->end < end; o->end++)
		if (!held_has(o->file->held, o->end))
			choice_give_back(o->choice, o->end);
}

static uint64_t window_end(const struct outlet *o)
{
	const struct metafile *m = &o->file->meta;

	return m->ring > 0 && m->ring < m->chunks - o->written ? o->written + m->ring : m->chunks;
}

/* Forks the writer. The fetcher never waits for it. Returns 0, or -1 with errno. */
static int start_writer(struct outlet *o, struct datafile *d, const uint8_t *zeros)
{
	int from = -1, to = -1;
	pid_t writer = process_fork_piped("writer", &from, &to);

	if (writer == 0) {
		datafile_map_read_only(d);
		run_writer(&(struct writer){.file = d, .zeros = zeros, .from = from, .to = to});
	}
	o->writer = writer;	/* the writer has no *o: it isn't forked */
	o->from = from;
	o->to = to;
	if (o->writer > 0 && fcntl(o->to, F_SETFL, O_NONBLOCK) == 0 &&
	    fcntl(o->from, F_SETFL, O_NONBLOCK) == 0)
		return 0;
	outlet_end(o);
	return -1;
}

/* Bits for the chunks that are zeros: those that are held already. NULL if there is no memory. */
static uint8_t *find_zeros(const struct datafile *d)
{
	uint8_t *zeros = calloc((size_t)(d->meta.chunks / 8 + 1), 1);

	for (uint64_t chunk = 0; chunk < d->meta.chunks && zeros != NULL; chunk++)
		if (held_has(d->held, chunk))
			zeros[chunk / 8] |= (uint8_t)(1u << chunk % 8);
	return zeros;
}

/* The window begins with the first chunk. What lies behind it is not wanted yet. */
static void begin_window(struct outlet *o)
{
	o->end = window_end(o);
	for (uint64_t chunk = o->end; chunk < o->file->meta.chunks; chunk++)
		if (!held_has(o->file->held, chunk))
			choice_take(o->choice, chunk);
}

int outlet_begin(struct outlet *o, struct datafile *d, struct choice *c)
{
	*o = (struct outlet){.file = d, .choice = c, .to = -1, .from = -1, .done = !d->temporary};
	if (o->done)
		return 0;
	uint8_t *zeros = find_zeros(d);
	int result = zeros != NULL ? start_writer(o, d, zeros) : -1;
	if (result < 0)
		log_warn("%s: no process can write to it", d->path);
	else
		begin_window(o);
	free(zeros);
	return result;
}

void outlet_end(struct outlet *o)
{
	if (o->writer > 0) {
		if (!o->done)
			kill(o->writer, SIGKILL);
		process_wait(o->writer);
		close(o->to);
		if (o->from >= 0)
			close(o->from);
	}
	*o = (struct outlet){.to = -1, .from = -1, .done = o->done};
}

/* ---- while it arrives ---------------------------------------------------------------- */

/* If the pipe is full, the writer will look. If it has ended, outlet_read learns why; and if it
 * can't be told, it is ended. */
int outlet_wake(const struct outlet *o)
{
	ssize_t n = 1;

	while (o->to >= 0 && (n = write(o->to, "", 1)) < 0 && errno == EINTR)
		;
	if (n == 1 || errno == EAGAIN || errno == EWOULDBLOCK)
		return 0;
	if (errno == EPIPE) {
		kill(o->writer, SIGKILL);
		return 0;
	}
	log_warn("%s: the writer can't be told that there is more", o->file->path);
	return -1;
}

bool outlet_waits(struct outlet *o)
{
	if (o->from < 0)
		return false;
	while (o->ready < o->end && held_has(o->file->held, o->ready))
		o->ready++;
	return o->ready == o->end;
}

/* Says why no more can be written. */
static int fail(struct outlet *o, const struct report *r)
{
	errno = r->error;
	if (r->unreadable)
		log_warn("%s: can't be read back", o->file->place);
	else
		log_warn("%s: can't be written", o->file->path);
	o->error = r->error;
	return -1;
}

int outlet_read(struct outlet *o)
{
	struct report r;
	ssize_t n;

	/* Each report is written by one write, so only whole ones are there to read. */
	while ((n = read(o->from, &r, sizeof r)) == sizeof r) {
		if (r.error != 0)
			return fail(o, &r);
		if (r.written < o->written || r.written > o->file->meta.chunks) {
			log_warnx("%s: the writer says what can't be", o->file->path);
			return -1;
		}
		o->written = r.written;
		o->done = r.closed;
		move_window(o, window_end(o));
		if (o->done) {
			close(o->from);
			o->from = -1;
			return 0;
		}
	}
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		return 0;
	log_warnx("%s: the writer has died", o->file->path);
	return -1;
}
