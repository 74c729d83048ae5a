/* serve_client.c - answering one client: what each child of the serving parent runs.
 * Nothing that the client sends is trusted, and each wait for it has a time limit. For speed,
 * requests that have come together are answered together: small chunks are copied and
 * sent with one system call, large ones go by sendfile. Over loopback, 24 chunks of
 * 1 KiB asked for together are answered at a million chunks a second; one at a time, at
 * a tenth of that. */
#include "serve/serve_client.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#if defined(__linux__) && !defined(PORTABLE)
#define HAVE_SENDFILE 1
#include <sys/sendfile.h>
#endif

#include "base/clock.h"
#include "base/io.h"
#include "base/log.h"
#include "base/retry.h"
#include "base/wait.h"
#include "net/wire.h"
#include "serve/pace.h"
#include "serve/refusal.h"
#include "serve/turns.h"

#define IDLE_MS 30000		/* until the next request begins */
#define REQUEST_MS 10000	/* from the first byte of a request to its last */
#define LINGER_MS 2000		/* for a client to read the last message */

#if !defined(MSG_MORE) || defined(PORTABLE)
#undef MSG_MORE
#define MSG_MORE 0		/* "more follows": a hint, where it exists */
#endif

#define REQUESTS_AHEAD 24			/* read with one recv */
#define OUT_SIZE ((size_t)128 << 10)		/* of answers sent together */
#define SEND_COPIED_MAX ((size_t)32 << 10)		/* larger chunks go by sendfile */
#define SEND_MAX ((size_t)1 << 30)		/* passed to one sendfile */

#define LIFE_MS 4000		/* a client that waits for its turn gets, in every such time, */
#define LIFE_BYTES 4096		/* so many bytes: else it would take this peer for dead */
#define UNSENT_MAX (64 << 10)	/* bytes that the system may hold back for a client, where others wait */

/* The child's only client. Each page that a new child writes to costs a page fault,
 * which is most of the cost of a fork. So all state is in one block, whose first 4096
 * bytes are enough for a small request and its answer. */
static _Alignas(4096) struct {
	int fd;
	const struct client_context *context;
	struct pace pace;
	struct datafile *open_file;		/* whose data file is open as data_fd; NULL: none */
	int data_fd;
	bool looked;				/* at open_file, since something was sent */
	bool touched;				/* its bytes may have changed: hash before sending */
	size_t in_used;
	size_t out_used;
	bool failed;				/* a send has failed: nothing may be sent after it */
	bool shares_line;			/* others may wait: the system is given little ahead */
	bool lost_turn;				/* the client took nothing; what is left waits for another turn */
	unsigned unsent_chunks;			/* in out */
	size_t allowed;				/* bytes that may be sent before the next token */
	int64_t begun_ms;			/* when the incomplete request began */
	uint8_t in[REQUESTS_AHEAD * PEER_REQUEST_SIZE];
	uint8_t out[OUT_SIZE];
} client;

/* ---- sending ----------------------------------------------------------------- */

/* After a send that failed. Returns 0 to try again, or -1. */
static int after_refused_send(void)
{
	if (errno == EINTR)
		return 0;
	if (errno != EAGAIN && errno != EWOULDBLOCK)
		return -1;
	if (client.context->turns != NULL)
		turns_step_aside(client.context->turns, client.context->child);
	for (;;)
		switch (pace_wait_to_send(&client.pace)) {
		case PACE_READY: return 0;
		case PACE_FAILED: return -1;
		case PACE_TAKES: break;
		case PACE_TAKES_NOTHING:
			if (client.context->turns != NULL && turns_lose(client.context->turns, client.context->child))
				client.lost_turn = true;
		}
}

/* Returns how many of size bytes may be sent now; waits until some may. 0: none, ever. */
static size_t allowance(uint64_t size)
{
	struct upload_limit *limit = client.context->limit;

	if (limit == NULL)
		return size < SEND_MAX ? (size_t)size : SEND_MAX;
	if (client.allowed < PEER_RESPONSE_SIZE) {	/* a header is not split */
		pace_delayed(&client.pace);
		if (!limit_take(limit, &client.allowed, PEER_RESPONSE_SIZE))
			return 0;
	}
	return size < client.allowed ? (size_t)size : client.allowed;
}

/* n bytes have been sent. */
static void account(ssize_t n)
{
	pace_sent(&client.pace, (size_t)n);
	if (client.shares_line)		/* else the table's page is not touched: that makes forks cheaper */
		turns_count(client.context->turns, (size_t)n);
	if (client.context->limit != NULL)
		client.allowed -= (size_t)n;
}

/* A part of an answer is missing. Nothing may be sent after it: the client would take
 * that for the missing part. */
static int sending_failed(void)
{
	client.failed = true;
	return -1;
}

static int send_bytes(const uint8_t *bytes, size_t size, int flags)
{
	if (client.failed)
		return -1;
	while (size > 0) {
		size_t now = allowance(size);
		ssize_t n = now == 0 ? -1 : send(client.fd, bytes, now, flags | MSG_NOSIGNAL);
		if (n < 0) {
			if (now == 0 || after_refused_send() < 0)
				return sending_failed();
			continue;
		}
		account(n);
		bytes += n;
		size -= (size_t)n;
	}
	return 0;
}

/* Sends the answers in out. */
static int flush_out(int flags)
{
	size_t size = client.out_used;

	client.out_used = 0;
	client.looked = false;
	if (send_bytes(client.out, size, flags) < 0)
		return -1;
	pace_chunks_sent(&client.pace, client.unsent_chunks);
	client.unsent_chunks = 0;
	return 0;
}

/* Reads size bytes of the data file. Returns 0, or -1 if it can't read them all. */
static int read_data(uint8_t *to, size_t size, uint64_t offset)
{
	return io_read_at(client.data_fd, to, size, offset) == (ssize_t)size ? 0 : -1;
}

/* What is not sent yet of a chunk. */
struct rest {
	uint64_t offset, length;	/* in the data file */
};

static void rest_advance(struct rest *rest, uint64_t size)
{
	rest->offset += size;
	rest->length -= size;
}

/* Sends that many bytes of the rest to the client; fewer, if it loses its turn and they are many. */
#ifdef HAVE_SENDFILE

static int send_data(struct rest *rest, uint64_t size)
{
	uint64_t end = rest->offset + size;
	off_t at = (off_t)rest->offset;

	while (rest->offset < end && !client.lost_turn) {
		size_t now = allowance(end - rest->offset);
		ssize_t n = now == 0 ? 0 : sendfile(client.fd, client.data_fd, &at, now);
		if (n == 0)
			return sending_failed();	/* the file has shrunk, or no token will come */
		if (n < 0) {
			if (after_refused_send() < 0)
				return sending_failed();
			continue;
		}
		account(n);
		rest_advance(rest, (uint64_t)n);
	}
	return 0;
}

#else

static int send_data(struct rest *rest, uint64_t size)
{
	uint64_t end = rest->offset + size;

	while (rest->offset < end && !client.lost_turn) {
		size_t piece = end - rest->offset < OUT_SIZE ? (size_t)(end - rest->offset) : OUT_SIZE;
		if (read_data(client.out, piece, rest->offset) < 0 || send_bytes(client.out, piece, 0) < 0)
			return sending_failed();
		rest_advance(rest, piece);
	}
	return 0;
}

#endif

/* ---- answers ----------------------------------------------------------------- */

/* Adds a response's header to out. The caller has made sure that it fits. */
static void put_header(uint8_t status, uint64_t length)
{
	peer_response_encode(client.out + client.out_used,
			     &(struct peer_response){.status = status, .length = length});
	client.out_used += PEER_RESPONSE_SIZE;
}

/* Makes sure that size bytes fit into out. */
static int make_room(size_t size)
{
	return client.out_used + size <= OUT_SIZE ? 0 : flush_out(0);
}

static int answer_message(enum peer_status status, const char *message, size_t length)
{
	if (make_room(PEER_RESPONSE_SIZE + length) < 0)
		return -1;
	put_header((uint8_t)status, length);
	memcpy(client.out + client.out_used, message, length);
	client.out_used += length;
	return 0;
}

/* Adds an answer with a message, which ends with a newline: some clients read a line. */
static int answer_error(enum peer_status status, const char *message)
{
	return answer_message(status, message, strlen(message));
}

/* The message tells what is held, so that the client can ask for that. */
static int answer_not_yet(const struct datafile *file)
{
	char message[REFUSAL_MAX];

	return answer_message(PEER_NO_CHUNK_YET, message, refusal_write(message, file->held));
}

static int open_anew(struct datafile *file)
{
	if (client.data_fd >= 0)
		close(client.data_fd);
	client.open_file = NULL;
	client.data_fd = retry_open(file->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0);
	if (client.data_fd >= 0)
		return 0;
	int error = errno;
	log_role("child");
	datafile_say_missing(file, error);
	return -1;
}

/* Decides whether a data file that looks like that is still served. If not, it is given up
 * by all processes of this peer, with a message. Returns whether it is served. */
static bool serve_or_give_up(struct datafile *file, enum datafile_look look)
{
	switch (look) {
	case DATAFILE_SAME:
	case DATAFILE_TOUCHED:
		return true;
	case DATAFILE_CHANGED:
		if (client.context->verify && file->meta.error == 0)
			return true;	/* each chunk is hashed anyway */
		log_role("child");
		datafile_give_up(file);
		return false;
	case DATAFILE_OTHER:
		log_role("child");
		datafile_say_missing(file, 0);
		return false;
	}
	return false;
}

/* Opens the data file, unless it is open already. Returns -1 if it is not the file that
 * was checked, or if somebody has written to it. One such look is enough for all chunks
 * that are sent together. */
static int open_data(struct datafile *file)
{
	if (client.open_file == file && client.looked)
		return 0;
	if (client.open_file != file && open_anew(file) < 0)
		return -1;
	enum datafile_look look = datafile_look(file, client.data_fd);
	if (!serve_or_give_up(file, look))
		return -1;
	client.open_file = file;
	client.looked = true;
	client.touched = look != DATAFILE_SAME;
	return 0;
}

/* Asks for a turn where others may be waiting. Then the system must hold back little:
 * what it has taken is sent in any order. */
static bool ask_for_turn(const struct datafile *file, uint64_t chunk)
{
	const struct client_context *context = client.context;
	bool scarce = context->turns != NULL && turns_are_scarce(context->turns);
	uint64_t region_size = regions_size(file->meta.chunks);

#ifdef TCP_NOTSENT_LOWAT
	int bytes = scarce ? UNSENT_MAX : 0;	/* 0: as usual */
	if (scarce != client.shares_line)
		(void)!setsockopt(client.fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &bytes, sizeof bytes);
#endif
	client.shares_line = scarce;
	if (scarce)
		turns_ask(context->turns, context->child, (size_t)(file - context->files),
			  (size_t)(chunk / region_size), region_size);
	return scarce;
}

static int send_some(struct rest *rest, uint64_t most)
{
	return send_data(rest, rest->length < most ? rest->length : most);
}

/* Waits for the client's turn. Meanwhile it gets the header, and a little now and then. */
static int wait_for_turn(struct rest *rest)
{
	const struct client_context *context = client.context;

	if (turns_wait(context->turns, context->child, client.fd, 0))
		return 0;
	if (flush_out(0) < 0)
		return -1;
	while (rest->length > 0 && !turns_wait(context->turns, context->child, client.fd, LIFE_MS))
		if (send_some(rest, LIFE_BYTES) < 0)
			return -1;
	return 0;
}

/* Sends what is in out, and the rest as far as the client's turn goes. */
static int send_in_turn(struct rest *rest, bool has_to_wait)
{
	client.lost_turn = false;
	if (has_to_wait && wait_for_turn(rest) < 0)
		return -1;
	return flush_out(MSG_MORE) < 0 ? -1 : send_some(rest, rest->length);
}

/* Sends a chunk that is too large to be copied, when it is the client's turn. */
static int send_large_chunk(const struct datafile *file, uint64_t chunk, struct rest rest)
{
	bool has_to_wait = ask_for_turn(file, chunk);
	int result;

	put_header(PEER_OK, rest.length);
	pace_add_chunk(&client.pace);
	do
		result = send_in_turn(&rest, has_to_wait);
	while (result == 0 && rest.length > 0);
	if (has_to_wait)
		(result == 0 ? turns_end : turns_leave)(client.context->turns, client.context->child);
	if (result == 0)
		pace_chunks_sent(&client.pace, 1);
	return result;
}

static int answer_chunk(const struct datafile *file, uint64_t chunk)
{
	uint64_t offset = metafile_chunk_offset(&file->meta, chunk);
	uint64_t length = metafile_chunk_length(&file->meta, chunk);

	if (length > SEND_COPIED_MAX) {
		if (make_room(PEER_RESPONSE_SIZE) < 0)
			return -1;
		return send_large_chunk(file, chunk, (struct rest){offset, length});
	}
	if (make_room(PEER_RESPONSE_SIZE + (size_t)length) < 0)
		return -1;
	put_header(PEER_OK, length);
	if (read_data(client.out + client.out_used, (size_t)length, offset) < 0) {
		client.out_used -= PEER_RESPONSE_SIZE;
		flush_out(0);
		return -1;	/* the file has shrunk */
	}
	client.out_used += (size_t)length;
	pace_add_chunk(&client.pace);
	client.unsent_chunks++;
	return 0;
}

/* Returns 1 if the chunk still has its hash; 0, after a message, if it doesn't. Sends
 * first what is in out, because it needs the buffer; returns -1 if it can't. */
static int check_hash(struct datafile *file, uint64_t chunk)
{
	uint64_t offset = metafile_chunk_offset(&file->meta, chunk);
	uint64_t left = metafile_chunk_length(&file->meta, chunk);
	uint8_t hash[SHA256_HASH_SIZE];
	SHA256_CTX ctx;

	if (flush_out(0) < 0)
		return -1;
	log_role("child");
	const uint8_t *expected = metafile_chunk_hash(&file->meta, chunk);
	if (expected == NULL) {
		log_warn("%s: can't be read; chunk %llu is not served", file->meta.path,
			 (unsigned long long)chunk);
		return 0;
	}
	sha256_init(&ctx);
	while (left > 0) {
		size_t piece = left < OUT_SIZE ? (size_t)left : OUT_SIZE;
		if (read_data(client.out, piece, offset) < 0)
			break;
		sha256_update(&ctx, client.out, piece);
		offset += piece;
		left -= piece;
	}
	sha256_final(&ctx, hash);
	if (left == 0 && memcmp(hash, expected, SHA256_HASH_SIZE) == 0)
		return 1;
	datafile_say_damaged(file, chunk);
	return 0;
}

static struct datafile *find_file(const uint8_t hash[SHA256_HASH_SIZE])
{
	for (size_t i = 0; i < client.context->count; i++)
		if (memcmp(client.context->files[i].meta.cascade_hash, hash, SHA256_HASH_SIZE) == 0)
			return &client.context->files[i];
	return NULL;
}

/* Answers, and closes the connection for writing. Then reads for a moment what the
 * client still sends: closing at once, with unread bytes, would reset the connection,
 * and the client could lose the answer (RFC 1122, 4.2.2.13). Always returns -1. */
static int answer_and_close(enum peer_status status, const char *message)
{
	int64_t deadline_ms = clock_ms() + LINGER_MS;
	ssize_t n = 1;

	if (answer_error(status, message) < 0 || flush_out(0) < 0)
		return -1;
	shutdown(client.fd, SHUT_WR);	/* fails if the client has gone */
	pace_leaving(&client.pace);
	while (n != 0 && clock_ms() < deadline_ms && wait_ready(client.fd, POLLIN, deadline_ms) == 0) {
		n = recv(client.fd, client.in, sizeof client.in, 0);
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			break;
	}
	return -1;
}

/* Answers one request. Returns 0 to go on, or -1 if the connection is to be closed. */
static int answer_request(const uint8_t bytes[PEER_REQUEST_SIZE])
{
	struct peer_request request;
	struct datafile *file;

	if (!peer_request_decode(&request, bytes))
		return answer_and_close(PEER_BAD_REQUEST, "a request begins with CASCADE1\n");
	file = find_file(request.cascade_hash);
	if (file == NULL)
		return answer_and_close(PEER_NO_FILE, "this peer doesn't have that file\n");
	if (request.chunk >= file->meta.chunks)
		return answer_and_close(PEER_NO_SUCH_CHUNK, "the file has no such chunk\n");
	if (atomic_load(file->lost))
		return answer_and_close(PEER_NO_FILE, "this peer doesn't have that file any more\n");
	if (!held_has(file->held, request.chunk))
		return answer_not_yet(file);
	pace_working(&client.pace);
	if (open_data(file) < 0)
		return answer_and_close(PEER_NO_FILE, "this peer doesn't have that file any more\n");
	int right = client.context->verify || client.touched ? check_hash(file, request.chunk) : 1;
	if (right < 0)
		return -1;
	if (right == 0)
		return answer_error(PEER_NO_CHUNK_YET, "this peer's copy of that chunk is damaged\n");
	return answer_chunk(file, request.chunk);
}

/* ---- requests ---------------------------------------------------------------- */

/* Sends what is in out, and waits for more bytes of requests. Returns 0, or -1 if the
 * connection is to be closed. */
static int read_more(void)
{
	int64_t deadline_ms = 0;	/* not set yet */
	ssize_t n;

	if (flush_out(0) < 0)
		return -1;
	pace_answers_sent(&client.pace);
	for (;;) {
		n = recv(client.fd, client.in + client.in_used, sizeof client.in - client.in_used, 0);
		if (n > 0) {
			if (client.in_used == 0 && n % PEER_REQUEST_SIZE != 0)
				client.begun_ms = clock_ms();
			client.in_used += (size_t)n;
			return 0;
		}
		if (n == 0 && client.in_used > 0)
			return answer_and_close(PEER_BAD_REQUEST,
						"the request ended too soon: it has 64 bytes\n");
		if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
			return -1;
		if (deadline_ms == 0) {
			deadline_ms = client.in_used > 0 ? client.begun_ms + REQUEST_MS
							 : clock_ms() + IDLE_MS;
			pace_silent(&client.pace);
		}
		if (wait_ready(client.fd, POLLIN, deadline_ms) < 0)
			return client.in_used == 0 ? -1
				: answer_and_close(PEER_BAD_REQUEST, "the request took too long\n");
	}
}

/* Answers all requests that are complete. Result as above. */
static int answer_requests(void)
{
	size_t done = 0;
	int result = 0;

	while (result == 0 && client.in_used - done >= PEER_REQUEST_SIZE) {
		result = answer_request(client.in + done);
		done += PEER_REQUEST_SIZE;
	}
	if (result < 0)
		return -1;
	client.in_used -= done;
	if (done > 0 && client.in_used > 0) {
		memmove(client.in, client.in + done, client.in_used);
		client.begun_ms = clock_ms();
	}
	/* Someone who types by hand is told at once that this is no request. */
	if (client.in_used > 0 && !peer_request_begins(client.in, client.in_used))
		return answer_and_close(PEER_BAD_REQUEST, "a request begins with CASCADE1\n");
	return 0;
}

static void begin_client(int fd, const struct client_context *context)
{
	static struct client_slot unread;

	client.fd = fd;
	client.context = context;
	pace_begin(&client.pace, fd, context->slot != NULL ? context->slot : &unread);
	client.open_file = NULL;
	client.data_fd = -1;
	client.in_used = client.out_used = client.allowed = 0;
	client.failed = client.shares_line = client.lost_turn = client.looked = false;
	client.unsent_chunks = 0;
}

static void end_client(void)
{
	pace_end(&client.pace);
	if (client.allowed > 0)
		limit_give_back(client.context->limit, client.allowed);
	if (client.data_fd >= 0)
		close(client.data_fd);
}

void serve_client(int fd, const struct client_context *context)
{
	begin_client(fd, context);
	while (read_more() == 0 && answer_requests() == 0)
		;
	end_client();
}

void serve_nothing(int fd, const struct client_context *context)
{
	begin_client(fd, context);
	answer_and_close(PEER_NO_CHUNK_YET, SERVE_BUSY_MESSAGE);
	end_client();
}
