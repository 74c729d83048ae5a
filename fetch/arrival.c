/* arrival.c - from the socket to the data file, and to a checker; used by the fetcher. */
#include "fetch/arrival.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "fetch/checkers.h"
#include "fetch/intake.h"
#include "fetch/transfer.h"

#define RECEIVE_SIZE ((size_t)256 << 10)	/* bytes taken from a socket at a time */
#define HAND_OVER_MIN (1u << 20)	/* bytes for which the checker is woken up if the lanes are full */
#define HAND_OVER_MAX (32u << 20)	/* bytes for which it is woken up in any case */
#define MERGE_MAX ((size_t)16 << 10)	/* copying less is cheaper than one more write */
#define TRANSFER_MIN ((size_t)64 << 10)	/* of a chunk, to go straight to the file */
#define WAKE_MIN ((size_t)256 << 10)	/* bytes of a fast peer for which the fetcher wakes up */
#define WAKE_MS 4			/* a peer that sends WAKE_MIN in this time is fast */
#define MESSAGE_MAX 65536		/* bytes of an error message; more breaks the protocol */

void arrival_begin(struct arrival *a, struct datafile *d, uint32_t number, struct swarm *s)
{
	*a = (struct arrival){.file = d, .number = number, .swarm = s, .held = held_count(d->held)};
}

/* ---- checking ---------------------------------------------------------------- */

static void tell_chunks(const struct arrival *a, const struct run *run, const struct peer *p)
{
	if (log_get_level() < LOG_VERBOSE)
		return;
	for (uint64_t chunk = run->first; chunk < run->first + run->count; chunk++)
		if (held_has(a->file->held, chunk))
			log_debug("%s: chunk %llu came from it", swarm_name(p), (unsigned long long)chunk);
}

/* What didn't match is wanted again, from somebody else. */
static void take_bad(struct arrival *a, const struct run *run, struct peer *p)
{
	uint64_t first_bad = run->first + run->count;
	char why[64];

	for (uint64_t chunk = run->first + run->count; chunk-- > run->first; )
		if (!held_has(a->file->held, chunk)) {
			swarm_chunk_wasted(a->swarm, chunk, metafile_chunk_length(&a->file->meta, chunk));
			first_bad = chunk;
		}
	if (run->metafile_error != 0) {
		a->file->meta.error = run->metafile_error;
		datafile_give_up(a->file);
		a->failed = true;
	} else if (run->error != 0) {
		errno = run->error;
		log_warn("%s: was cut by somebody else, or can't be read back", a->file->place);
		a->failed = true;
	} else {
		snprintf(why, sizeof why, "sent a wrong chunk (%llu)", (unsigned long long)first_bad);
		swarm_ban(a->swarm, p, why, clock_ms());
	}
}

/* Takes what checking a run has given, here or in a checker. */
static void take_result(struct arrival *a, const struct run *run)
{
	if (run->peer >= a->swarm->count || run->bad > run->count) {
		log_warnx("%s: a checker says what can't be", a->file->path);
		a->failed = true;
		return;
	}
	struct peer *p = &a->swarm->peers[run->peer];
	uint64_t good = run->count - run->bad;

	p->unchecked--;
	a->held += good;
	if (good > 0)
		swarm_delivered(a->swarm, p, good);
	tell_chunks(a, run, p);
	if (run->bad > 0)
		take_bad(a, run, p);
	if (datafile_unmark(a->file, a->held == a->file->meta.chunks) < 0)
		a->failed = true;
}

void arrival_take_result(struct arrival *a, const struct run *run)
{
	a->waiting--;
	take_result(a, run);
}

void arrival_lost_checker(struct arrival *a)
{
	if (a->waiting == 0 || a->failed)
		return;
	log_warnx("%s: a checker has died", a->file->path);
	a->failed = true;
}

bool arrival_flush(struct arrival *a)
{
	struct run run = a->unchecked;

	if (run.count == 0 || a->failed)
		return false;
	a->unchecked.count = 0;
	if (checkers_send(&run) == 0) {
		a->waiting++;
		return false;
	}
	if (a->failed)
		return false;
	/* Without a process for it, this one checks. */
	check_runs(&a->file->meta, a->file->fd, &run, 1, a->file->held);
	take_result(a, &run);
	return true;
}

/* Gives written chunks to a checker; not one by one while more keep coming,
 * since it hashes several in little more time than one. */
static void hand_over(struct arrival *a, struct peer *p, const struct run *run)
{
	struct run *u = &a->unchecked;
	uint32_t peer = (uint32_t)(p - a->swarm->peers);
	uint64_t size = a->file->meta.chunk_size;

	if (u->count > 0 && (u->peer != peer || u->first + u->count != run->first))
		arrival_flush(a);
	if (u->count == 0) {
		*u = (struct run){.first = run->first, .file = a->number, .peer = peer};
		p->unchecked++;
	}
	u->count += run->count;
	if (u->count >= HAND_OVER_MIN / size &&
	    (u->count >= sha256_lanes() || u->count >= HAND_OVER_MAX / size))
		arrival_flush(a);
}

/* ---- the data file ----------------------------------------------------------- */

/* Bytes that were received and not yet written, and chunks that are complete
 * once they are. */
struct unwritten {
	uint8_t *bytes;
	size_t size;
	uint64_t offset;	/* in the data file */
	struct run run;
};

/* The disk is full, or so. What was written before this call of write is still checked, and
 * is then held and served. What this call has written, the next start finds. */
static void end_with_write_error(struct arrival *a, int error)
{
	a->error = error;
	arrival_flush(a);
	while (a->waiting > 0 && !a->failed)
		checkers_wait();
	datafile_say_unwritable(a->file, error);
	a->failed = true;
}

/* Writes the bytes, and gives the chunks that they complete to the checker. */
static void write_out(struct arrival *a, struct peer *p, struct unwritten *u)
{
	/* Writing to a file that was cut would give it its length back, with holes
	 * for what is held. */
	if (u->size > 0 && !datafile_is_intact(a->file)) {
		a->failed = true;
		return;
	}
	int error = u->size > 0 ? datafile_mark(a->file) : 0;
	if (error == 0)
		error = io_write_at(a->file->fd, u->bytes, u->size, u->offset);
	if (error != 0) {
		end_with_write_error(a, error);
		return;
	}
	if (u->run.count > 0)
		hand_over(a, p, &u->run);
	u->size = 0;
	u->run.count = 0;
}

/* Where in the data file the next byte of the awaited chunk goes. */
static uint64_t next_offset(const struct arrival *a, const struct connection *c)
{
	return metafile_chunk_offset(&a->file->meta, connection_awaited(c)) + c->body_got;
}

/* Whether the next byte of the awaited chunk continues what is unwritten. In a ring (outlet.h)
 * chunks that are no neighbours can lie side by side; a run can't have both. */
static bool continues(const struct arrival *a, const struct connection *c, const struct unwritten *u)
{
	bool is_neighbour = u->run.count == 0 || connection_awaited(c) == u->run.first + u->run.count;

	return is_neighbour && u->size > 0 && u->offset + u->size == next_offset(a, c);
}

/* Adds a piece of the awaited chunk to what is unwritten. */
static void add_bytes(struct arrival *a, struct peer *p, struct unwritten *u, uint8_t *bytes, size_t size)
{
	if (size <= MERGE_MAX && continues(a, &p->connection, u)) {
		memmove(u->bytes + u->size, bytes, size);	/* a response's header lies between */
	} else {
		uint64_t offset = next_offset(a, &p->connection);	/* write_out may end the connection */
		write_out(a, p, u);
		u->bytes = bytes;
		u->offset = offset;
		u->size = 0;
	}
	u->size += size;
}

/* The bytes added last completed the chunk. */
static void add_chunk(struct unwritten *u, uint64_t chunk)
{
	if (u->run.count == 0)
		u->run.first = chunk;
	u->run.count++;
}

/* ---- responses ----------------------------------------------------------------- */

static bool is_open(const struct peer *p)
{
	return connection_is_open(&p->connection);
}

/* What is wrong with the response whose header has come; NULL: nothing. */
static const char *find_fault(const struct arrival *a, const struct connection *c)
{
	bool chunk_comes = c->response.status == PEER_OK;

	if (c->asked_count == 0)
		return "answers what it wasn't asked";
	if (chunk_comes && c->response.length != metafile_chunk_length(&a->file->meta, connection_awaited(c)))
		return "sends a chunk of the wrong length";
	if (c->response.status >= PEER_STATUS_COUNT)
		return "answers with an unknown status";
	if (!chunk_comes && c->response.length > MESSAGE_MAX)
		return "sends an error message without end";
	return NULL;
}

/* Looks at the response's header, which has come. The peer may be disconnected
 * for it. */
static void begin_response(struct arrival *a, struct peer *p)
{
	struct connection *c = &p->connection;
	const char *fault;

	peer_response_decode(&c->response, c->header);
	c->body_got = 0;
	if (c->asked_count == 0 && c->response.status != PEER_OK)
		swarm_fail(a->swarm, p, "has too much to do", clock_ms());
	else if ((fault = find_fault(a, c)) != NULL)
		swarm_ban(a->swarm, p, fault, clock_ms());
	else if (c->response.status == PEER_OK)
		swarm_chunk_begins(a->swarm, p);
}

/* Takes what is missing of a header. Returns how many bytes it took. */
static size_t take_header(struct arrival *a, struct peer *p, const uint8_t *bytes, size_t size)
{
	struct connection *c = &p->connection;
	size_t missing = PEER_RESPONSE_SIZE - c->header_got, n = missing < size ? missing : size;

	memcpy(c->header + c->header_got, bytes, n);
	c->header_got += (unsigned)n;
	if (n == missing)
		begin_response(a, p);
	return n;
}

/* Takes a piece of a message, whose beginning is looked at. */
static void take_message(struct connection *c, const uint8_t *bytes, size_t size)
{
	if (c->message == NULL && (c->message = malloc(CONNECTION_MESSAGE_MAX)) == NULL)
		return;
	for (size_t i = 0; i < size && c->body_got + i < CONNECTION_MESSAGE_MAX; i++)
		c->message[c->body_got + i] = (char)bytes[i];
}

/* Takes a piece of a chunk, or of a message. */
static size_t take_body(struct arrival *a, struct peer *p, struct unwritten *u, uint8_t *bytes, size_t size)
{
	struct connection *c = &p->connection;
	uint64_t missing = c->response.length - c->body_got;
	size_t n = missing < size ? (size_t)missing : size;

	if (c->response.status == PEER_OK)
		add_bytes(a, p, u, bytes, n);
	else
		take_message(c, bytes, n);
	c->body_got += n;
	return n;
}

static bool has_whole_response(const struct connection *c)
{
	return c->header_got == PEER_RESPONSE_SIZE && c->body_got == c->response.length;
}

static void take_refusal(struct swarm *s, struct peer *p)
{
	const struct connection *c = &p->connection;
	struct region_set held;
	bool told = c->message != NULL && c->body_got <= CONNECTION_MESSAGE_MAX &&
		    region_set_decode(&held, s->choice.wanted.regions, c->message, (size_t)c->body_got);

	swarm_chunk_refused(s, p, told ? &held : NULL, clock_ms());
}

static void finish_error(struct swarm *s, struct peer *p)
{
	/* Without default, the compiler finds a new status. */
	switch ((enum peer_status)p->connection.response.status) {
	case PEER_OK:
	case PEER_STATUS_COUNT:
		break;	/* not an error; find_fault has refused larger ones */
	case PEER_NO_CHUNK_YET:
		take_refusal(s, p);
		break;
	case PEER_NO_FILE:
		swarm_lacks_file(s, p, clock_ms());
		break;
	case PEER_BAD_REQUEST:
		swarm_cannot_parse(s, p, clock_ms());
		break;
	case PEER_NO_SUCH_CHUNK:
		swarm_ban(s, p, "denies that there is such a chunk", clock_ms());
	}
}

static void finish_response(struct arrival *a, struct peer *p, struct unwritten *u)
{
	p->connection.header_got = 0;
	if (p->connection.response.status == PEER_OK) {
		add_chunk(u, connection_awaited(&p->connection));
		swarm_chunk_arrived(p, clock_ms());
	} else {
		finish_error(a->swarm, p);
	}
	if (is_open(p))
		swarm_answered(a->swarm, p, clock_ms());
}

/* Takes apart what has come: headers, bodies, in any pieces. */
static void take_bytes(struct arrival *a, struct peer *p, uint8_t *bytes, size_t size)
{
	struct unwritten u = {0};

	while (size > 0 && is_open(p) && !a->failed) {
		size_t n = p->connection.header_got < PEER_RESPONSE_SIZE ? take_header(a, p, bytes, size)
									 : take_body(a, p, &u, bytes, size);
		bytes += n;
		size -= n;
		if (is_open(p) && has_whole_response(&p->connection))
			finish_response(a, p, &u);
	}
	if (!a->failed)
		write_out(a, p, &u);
}

static void handle_end(struct swarm *s, struct peer *p, const char *why)
{
	const struct connection *c = &p->connection;

	/* After a response it is a peer's right; what was asked for is asked again. */
	if (c->asked_count == 0 || (c->answers > 0 && c->header_got == 0))
		swarm_hung_up(s, p, clock_ms());
	else
		swarm_fail(s, p, why, clock_ms());
}

_Static_assert(TRANSFER_MIN + PEER_RESPONSE_SIZE <= RECEIVE_SIZE, "the rest of a chunk, and a header");
_Static_assert(MESSAGE_MAX + PEER_RESPONSE_SIZE <= RECEIVE_SIZE, "the rest of a message, and a header");

/* How much to take from the socket, RECEIVE_SIZE at most: where chunks are large, so little that
 * the next one can go straight to the file. */
static size_t receive_size(const struct arrival *a, const struct connection *c)
{
	if (a->file->meta.chunk_size < TRANSFER_MIN)
		return RECEIVE_SIZE;
	if (c->header_got < PEER_RESPONSE_SIZE)
		return PEER_RESPONSE_SIZE - c->header_got;
	return (size_t)(c->response.length - c->body_got) + PEER_RESPONSE_SIZE;
}

/* Takes what has come, as far as that many bytes are allowed. Result as of recv(2). */
static ssize_t receive_bytes(struct arrival *a, struct peer *p, size_t allowed)
{
	static uint8_t buffer[RECEIVE_SIZE];
	size_t size = receive_size(a, &p->connection);
	ssize_t n = recv(p->connection.fd, buffer, size < allowed ? size : allowed, 0);

	if (n > 0) {
		swarm_heard(p, (size_t)n, clock_ms());
		take_bytes(a, p, buffer, (size_t)n);
	}
	return n;
}

/* The same, for the middle of a large chunk. */
static ssize_t receive_to_file(struct arrival *a, struct peer *p, size_t allowed)
{
	struct connection *c = &p->connection;
	uint64_t missing = connection_missing_of_chunk(c), offset = next_offset(a, c);
	struct unwritten none = {0};
	int error;

	if (!datafile_is_intact(a->file)) {
		a->failed = true;
		return 1;
	}
	if ((error = datafile_mark(a->file)) != 0) {
		end_with_write_error(a, error);
		return 1;
	}
	if (allowed > SSIZE_MAX)
		allowed = SSIZE_MAX;
	size_t size = missing < allowed ? (size_t)missing : allowed;
	ssize_t n = transfer_from_socket(c->fd, size, a->file->fd, offset, &error);
	if (n <= 0)
		return n;
	swarm_heard(p, (size_t)n, clock_ms());
	if (error != 0) {
		end_with_write_error(a, error);
		return n;
	}
	c->body_got += (uint64_t)n;
	if (has_whole_response(c))
		finish_response(a, p, &none);
	write_out(a, p, &none);
	return n;
}

/* How many bytes of the peer's are worth waking up for: of a chunk that comes
 * fast, not each packet. */
static size_t enough(const struct peer *p, size_t allowed)
{
	uint64_t missing = connection_missing_of_chunk(&p->connection);

	if (missing == 0 || allowed < WAKE_MIN || p->rate < (double)WAKE_MIN * 1000 / WAKE_MS)
		return 1;
	return missing < WAKE_MIN ? (size_t)missing : WAKE_MIN;
}

void arrival_receive(struct arrival *a, struct peer *p)
{
	size_t allowed = intake_allowed(clock_ms());

	if (allowed == 0)
		return;
	bool large = connection_missing_of_chunk(&p->connection) >= TRANSFER_MIN;
	ssize_t n = large ? receive_to_file(a, p, allowed) : receive_bytes(a, p, allowed);
	if (n > 0)
		intake_took((size_t)n);
	if (n > 0 && is_open(p))
		connection_wake_at(&p->connection, enough(p, allowed - (size_t)n));
	if (n == 0)
		handle_end(a->swarm, p, "closed the connection before it answered");
	else if (n < 0 && errno == ECONNRESET)
		handle_end(a->swarm, p, strerror(errno));
	else if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
		swarm_fail(a->swarm, p, strerror(errno), clock_ms());	/* ENOMEM too: a rest is what helps */
}
