/* serve_client.c - answering one client; run by the serving parent's children.
 *
 * Nothing that a client sends is trusted, and no wait is without an end. What
 * can be answered together is read in one go and sent in one go. */
#include "serve/serve_client.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#if defined(__linux__) && !defined(PORTABLE)
#define HAVE_SENDFILE 1
#include <sys/sendfile.h>
#endif

#include "base/clock.h"
#include "base/log.h"
#include "base/retry.h"
#include "net/wire.h"
#include "serve/refusal.h"
#include "serve/turns.h"

#define IDLE_MS 30000		/* until the next request begins */
#define REQUEST_MS 10000	/* from a request's first byte to its last */
#define FLOOR_MS 30000		/* a client has to take, in every such time, */
#define FLOOR_BYTES (30 << 10)	/* so many bytes */
#define LOOK_MS 250		/* between two looks at how many it took */
#define USE_KNOWN_MS 86400000	/* how long since, or ahead, is told to the parent at most */
#define LINGER_MS 2000		/* for a client to read a last message */

#ifndef MSG_MORE
#define MSG_MORE 0		/* "more follows": a hint, where it exists */
#endif

#define REQUESTS_AHEAD 24			/* read in one go */
#define OUT_SIZE ((size_t)128 << 10)		/* answers sent in one go */
#define COPIED_MAX ((size_t)32 << 10)		/* a larger chunk goes by sendfile */
#define SEND_MAX ((size_t)1 << 30)		/* asked of one sendfile */

#define LIFE_MS 4000		/* a client that waits for its turn gets, in every such time, */
#define LIFE_BYTES 4096		/* so many bytes: else it would take this peer for dead */
#define STALL_MS 1000		/* a client that takes nothing for so long loses its turn */
#define UNSENT_MAX (64 << 10)	/* bytes that the system may hold back for a client, where others wait */

/* The child's one client. Every page that a new child writes to costs it a page
 * fault, which is what forking is made of: so all of this is one block, in which
 * a small request and its answer lie in the first 4096 bytes. */
static _Alignas(4096) struct {
	int fd;
	const struct client_context *context;
	struct client_slot *slot;
	struct datafile *open_file;		/* the one that data_fd is open for */
	int data_fd;
	bool touched;				/* its bytes may be others than they were */
	size_t in_used;
	size_t out_used;
	bool failed;				/* a send has: nothing may follow it */
	bool working;				/* the parent knows it as CLIENT_WORKING */
	bool shares_line;			/* as others may be waiting, little is given to the system ahead */
	unsigned new_chunks;			/* in the answers since it was last asked how the client does */
	unsigned unsent_chunks;			/* of those, the ones that wait in out */
	int64_t useful_ms;			/* until when the client was of use; 0: from its beginning */
	uint64_t batch_start;			/* sent before the answers that are being sent */
	int64_t slow_ms;			/* since when it keeps those waiting; 0: it doesn't */
	uint64_t slow_start;			/* bytes that it had taken when they began */
	int64_t waited_ms;			/* when the child last waited for it to take more */
	int64_t floor_start_ms;			/* since when the floor is being measured */
	uint64_t floor_start;			/* bytes taken by then */
	size_t allowed;				/* bytes that may be sent before the next token */
	uint64_t sent, taken;			/* bytes, in all; the client's kernel has these */
	uint32_t chunks;			/* likewise */
	int64_t begun_ms;			/* when the request that is incomplete began */
	uint8_t in[REQUESTS_AHEAD * PEER_REQUEST_SIZE];
	uint8_t out[OUT_SIZE];
} client;

static void set_state(enum client_state state)
{
	atomic_store_explicit(&client.slot->sent_kib, (uint32_t)(client.sent >> 10), memory_order_relaxed);
	atomic_store_explicit(&client.slot->chunks, client.chunks, memory_order_relaxed);
	atomic_store_explicit(&client.slot->state, state, memory_order_release);
	client.working = state == CLIENT_WORKING;
}

/* The client keeps the child waiting, and was of use until useful_ms. The low
 * bits of a time tell it apart from others for some weeks. */
static void set_waiting(enum client_state state, int64_t useful_ms, int64_t now_ms)
{
	if (useful_ms < now_ms - USE_KNOWN_MS)
		useful_ms = now_ms - USE_KNOWN_MS;
	if (useful_ms > now_ms + USE_KNOWN_MS)
		useful_ms = now_ms + USE_KNOWN_MS;
	atomic_store_explicit(&client.slot->since_ms, (uint32_t)useful_ms, memory_order_relaxed);
	set_state(state);
}

/* How many bytes the client has taken, in all: not what lies in the socket
 * still, where the system can tell that (some count more than the bytes). */
static uint64_t bytes_taken(void)
{
	uint64_t left = 0;
#ifdef TIOCOUTQ
	int queued;

	if (ioctl(client.fd, TIOCOUTQ, &queued) == 0 && queued >= 0)
		left = (uint64_t)queued < client.sent ? (uint64_t)queued : client.sent;
#endif
	if (client.sent - left > client.taken)
		client.taken = client.sent - left;
	return client.taken;
}

/* Until when a client that keeps answers waiting was of use. A large buffer on
 * its side makes it take data in leaps: so that may lie ahead. */
static int64_t slow_until_ms(uint64_t taken)
{
	return client.slow_ms + (int64_t)((taken - client.slow_start) * 1000 / CLIENT_RATE);
}

/* The time in which the child didn't wait for the client is not the client's. */
static void skip_own_time(int64_t now)
{
	client.slow_ms += now - client.waited_ms;
	client.floor_start_ms += now - client.waited_ms;
	client.waited_ms = now;
}

/* The answers that had to wait have been sent. What the client took beyond its
 * time is not put by for other answers; what it lacks is not forgiven. */
static void end_slow_answers(void)
{
	int64_t now = clock_ms();
	uint64_t taken = bytes_taken();

	skip_own_time(now);
	client.slow_ms = client.new_chunks > 0 ? clock_earlier(slow_until_ms(taken), now) : now;
	client.slow_start = taken;
	if (client.new_chunks > 0)
		client.useful_ms = client.slow_ms;
	client.new_chunks = 0;
}

/* Waits until the client takes more; -1 when it takes less than the floor. */
static int wait_to_send(void)
{
	int64_t now = clock_ms(), began = now;
	uint64_t taken = bytes_taken();
	bool ready, again;

	if (client.slow_ms == 0) {
		client.slow_ms = client.floor_start_ms = client.waited_ms = now;
		client.floor_start = taken;
		client.slow_start = client.batch_start < taken ? client.batch_start : taken;
	}
	skip_own_time(now);
	do {
		if (now - client.floor_start_ms >= FLOOR_MS) {
			if (taken - client.floor_start < FLOOR_BYTES)
				return -1;
			client.floor_start_ms = now;
			client.floor_start = taken;
		}
		if (client.new_chunks > 0)
			set_waiting(CLIENT_SLOW, slow_until_ms(taken), now);
		ready = wait_ready(client.fd, POLLOUT, now + LOOK_MS) == 0;
		again = !ready && errno == ETIMEDOUT;
		now = client.waited_ms = clock_ms();
		taken = bytes_taken();
		if (again && client.context->turns != NULL && now - began >= STALL_MS)
			turns_end(client.context->turns, client.context->child);	/* it is for who takes something */
	} while (again);
	if (client.new_chunks > 0)
		set_state(CLIENT_WORKING);
	return ready ? 0 : -1;
}

/* What to do when nothing was sent: 0 to try again, or -1. */
static int after_refused_send(void)
{
	if (errno == EINTR)
		return 0;
	return errno == EAGAIN || errno == EWOULDBLOCK ? wait_to_send() : -1;
}

/* How many of size bytes may be sent now; waits until some may. 0: never. */
static size_t allowance(uint64_t size)
{
	struct upload_limit *limit = client.context->limit;
	char token;

	if (limit == NULL)
		return size < SEND_MAX ? (size_t)size : SEND_MAX;
	while (client.allowed < PEER_RESPONSE_SIZE) {	/* a header is not split */
		client.allowed += atomic_exchange(&limit->unused, 0);
		if (client.allowed >= PEER_RESPONSE_SIZE)
			break;
		if (client.new_chunks > 0)
			set_state(CLIENT_WORKING);	/* for whoever looks meanwhile */
		ssize_t n = read(limit->tokens[0], &token, 1);
		if (n == 1)
			client.allowed += limit->token_bytes;
		else if (n == 0 || errno != EINTR)
			return 0;
	}
	return size < client.allowed ? (size_t)size : client.allowed;
}

/* n bytes have been sent. */
static void account(ssize_t n)
{
	client.sent += (uint64_t)n;
	if (client.context->turns != NULL)
		turns_count(client.context->turns, (size_t)n);
	if (client.context->limit != NULL)
		client.allowed -= (size_t)n;
}

/* Nothing can be sent any more: the client would take it for what it lacks. */
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

/* Sends the answers that were put together. */
static int flush_out(int flags)
{
	size_t size = client.out_used;

	client.out_used = 0;
	if (send_bytes(client.out, size, flags) < 0)
		return -1;
	client.chunks += client.unsent_chunks;
	client.unsent_chunks = 0;
	return 0;
}

/* Reads some bytes of the data file; -1 if they aren't there. */
static int read_data(uint8_t *to, size_t size, uint64_t offset)
{
	while (size > 0) {
		ssize_t n = pread(client.data_fd, to, size, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		to += n;
		size -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

/* Sends size bytes of the data file to the client. */
#ifdef HAVE_SENDFILE

static int send_data(uint64_t offset, uint64_t size)
{
	off_t at = (off_t)offset;

	while (size > 0) {
		size_t now = allowance(size);
		ssize_t n = now == 0 ? 0 : sendfile(client.fd, client.data_fd, &at, now);
		if (n == 0)
			return sending_failed();	/* the file has shrunk */
		if (n < 0) {
			if (after_refused_send() < 0)
				return sending_failed();
			continue;
		}
		account(n);
		size -= (uint64_t)n;
	}
	return 0;
}

#else

static int send_data(uint64_t offset, uint64_t size)
{
	while (size > 0) {
		size_t piece = size < OUT_SIZE ? (size_t)size : OUT_SIZE;
		if (read_data(client.out, piece, offset) < 0 || send_bytes(client.out, piece, 0) < 0)
			return sending_failed();
		offset += piece;
		size -= piece;
	}
	return 0;
}

#endif

/* Puts a response's header down. There is room: callers see to it. */
static void put_header(uint8_t status, uint64_t length)
{
	peer_response_encode(client.out + client.out_used,
			     &(struct peer_response){.status = status, .length = length});
	client.out_used += PEER_RESPONSE_SIZE;
}

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

/* The message ends with a newline: some clients read it as a line. */
static int answer_error(enum peer_status status, const char *message)
{
	return answer_message(status, message, strlen(message));
}

/* Tells what is held instead: whoever knows that needn't ask for all in turn. */
static int answer_not_yet(const struct datafile *file)
{
	char message[REFUSAL_MAX];

	return answer_message(PEER_NO_CHUNK_YET, message, refusal_write(message, file->held));
}

/* Opens the data file, unless it is open already. It must still be the file
 * that was checked: whoever put another in its place, or wrote to it, may have other
 * bytes. Chunks that are sent together are read at the same time: one look will do. */
static int open_data(struct datafile *file)
{
	if (client.open_file == file && client.out_used > 0)
		return 0;
	if (client.open_file != file) {
		if (client.data_fd >= 0)
			close(client.data_fd);
		client.open_file = NULL;
		client.data_fd = retry_open(file->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0);
		if (client.data_fd < 0)
			return -1;
	}
	enum datafile_look look = datafile_look(file, client.data_fd);
	if (look == DATAFILE_CHANGED && client.context->verify && file->meta.error == 0)
		look = DATAFILE_TOUCHED;	/* each chunk is hashed in any case */
	if (look == DATAFILE_CHANGED) {
		log_role("child");
		datafile_lose(file);
	}
	if (look != DATAFILE_SAME && look != DATAFILE_TOUCHED)
		return -1;
	client.open_file = file;
	client.touched = look == DATAFILE_TOUCHED;
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

/* Sends a chunk that is too large to be put together with others, when it is its turn. */
static int send_large_chunk(const struct datafile *file, uint64_t chunk, uint64_t offset, uint64_t length)
{
	const struct client_context *context = client.context;
	bool scarce = ask_for_turn(file, chunk);
	int result = 0, patience_ms = 0;

	put_header(PEER_OK, length);
	client.new_chunks++;
	while (result == 0 && scarce && !turns_wait(context->turns, context->child, client.fd, patience_ms)) {
		uint64_t piece = patience_ms == 0 ? 0 : length < LIFE_BYTES ? length : LIFE_BYTES;
		result = flush_out(0) < 0 || (piece > 0 && send_data(offset, piece) < 0) ? -1 : 0;
		offset += piece;
		length -= piece;
		patience_ms = LIFE_MS;
	}
	if (result == 0)
		result = flush_out(MSG_MORE) < 0 || (length > 0 && send_data(offset, length) < 0) ? -1 : 0;
	if (scarce)
		turns_end(context->turns, context->child);
	client.chunks += result == 0;
	return result;
}

static int answer_chunk(const struct datafile *file, uint64_t chunk)
{
	uint64_t offset = metafile_chunk_offset(&file->meta, chunk);
	uint64_t length = metafile_chunk_length(&file->meta, chunk);

	if (length > COPIED_MAX) {
		if (make_room(PEER_RESPONSE_SIZE) < 0)
			return -1;
		return send_large_chunk(file, chunk, offset, length);
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
	client.new_chunks++;
	client.unsent_chunks++;
	return 0;
}

/* Whether the chunk still has its hash: 1; or 0, after a message. What waits to
 * be sent goes first, since the buffer is needed; -1: it couldn't be sent. */
static int has_its_hash(struct datafile *file, uint64_t chunk)
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
	log_warnx("%s: chunk %llu is damaged; it is not served", file->path, (unsigned long long)chunk);
	return 0;
}

static struct datafile *find_file(const uint8_t hash[SHA256_HASH_SIZE])
{
	for (size_t i = 0; i < client.context->count; i++)
		if (memcmp(client.context->files[i].meta.cascade_hash, hash, SHA256_HASH_SIZE) == 0)
			return &client.context->files[i];
	return NULL;
}

/* Answers, and closes the connection for writing. What the client still sends
 * is read for a moment: closing at once, with bytes unread, could destroy the
 * answer on its way (RFC 1122, 4.2.2.13). Always returns -1: the end. */
static int answer_and_close(enum peer_status status, const char *message)
{
	int64_t deadline_ms = clock_ms() + LINGER_MS;
	ssize_t n = 1;

	if (answer_error(status, message) < 0 || flush_out(0) < 0)
		return -1;
	shutdown(client.fd, SHUT_WR);	/* fails where nobody is left to read the answer */
	set_waiting(CLIENT_SILENT, deadline_ms - LINGER_MS, deadline_ms - LINGER_MS);
	while (n != 0 && clock_ms() < deadline_ms && wait_ready(client.fd, POLLIN, deadline_ms) == 0) {
		n = recv(client.fd, client.in, sizeof client.in, 0);
		if (n < 0 && errno != EINTR && errno != EAGAIN)
			break;
	}
	return -1;
}

/* 0: go on with the next request; -1: that was the last one. */
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
	if (!client.working)
		set_state(CLIENT_WORKING);
	if (open_data(file) < 0)
		return answer_and_close(PEER_NO_FILE, "this peer doesn't have that file any more\n");
	int right = client.context->verify || client.touched ? has_its_hash(file, request.chunk) : 1;
	if (right < 0)
		return -1;
	if (right == 0)
		return answer_error(PEER_NO_CHUNK_YET, "this peer's copy of that chunk is damaged\n");
	return answer_chunk(file, request.chunk);
}

/* Waits for more bytes of requests, after sending what is due. 0, or -1 at the
 * end of it all. */
static int read_more(void)
{
	int64_t now_ms = 0, deadline_ms;
	ssize_t n;

	if (flush_out(0) < 0)
		return -1;
	if (client.slow_ms != 0)
		end_slow_answers();
	client.batch_start = client.sent;
	for (;;) {
		n = recv(client.fd, client.in + client.in_used, sizeof client.in - client.in_used, 0);
		if (n > 0) {
			if (client.in_used == 0 && n % PEER_REQUEST_SIZE != 0)
				client.begun_ms = clock_ms();
			client.in_used += (size_t)n;
			return 0;
		}
		if (n == 0 && client.in_used > 0)
			return answer_and_close(PEER_BAD_REQUEST, "the request ended too soon: it has 64 bytes\n");
		if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
			return -1;
		if (now_ms == 0) {
			now_ms = clock_ms();
			deadline_ms = client.in_used > 0 ? client.begun_ms + REQUEST_MS : now_ms + IDLE_MS;
			if (client.new_chunks > 0 || client.useful_ms == 0)
				client.useful_ms = now_ms;
			client.new_chunks = 0;
			client.slow_ms = 0;
			set_waiting(CLIENT_SILENT, client.useful_ms, now_ms);
		}
		if (wait_ready(client.fd, POLLIN, deadline_ms) < 0)
			return client.in_used == 0 ? -1
				: answer_and_close(PEER_BAD_REQUEST, "the request took too long\n");
	}
}

/* Answers all requests that are there whole. */
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
	/* Whoever types a request by hand hears at once that it is none. */
	if (client.in_used > 0 && !peer_request_begins(client.in, client.in_used))
		return answer_and_close(PEER_BAD_REQUEST, "a request begins with CASCADE1\n");
	return 0;
}

static void begin(int fd, const struct client_context *context)
{
	static struct client_slot nobody_looks;

	client.fd = fd;
	client.context = context;
	client.slot = context->slot != NULL ? context->slot : &nobody_looks;
	client.open_file = NULL;
	client.data_fd = -1;
	client.in_used = client.out_used = client.allowed = 0;
	client.sent = client.taken = client.batch_start = client.chunks = 0;
	client.failed = client.working = client.shares_line = false;
	client.new_chunks = client.unsent_chunks = 0;
	client.useful_ms = client.slow_ms = 0;
}

static void end(void)
{
	set_state(CLIENT_WORKING);
	if (client.allowed > 0)
		atomic_fetch_add(&client.context->limit->unused, (uint32_t)client.allowed);
	if (client.data_fd >= 0)
		close(client.data_fd);
}

void serve_client(int fd, const struct client_context *context)
{
	begin(fd, context);
	while (read_more() == 0 && answer_requests() == 0)
		;
	end();
}

void serve_nothing(int fd, const struct client_context *context)
{
	begin(fd, context);
	answer_and_close(PEER_NO_CHUNK_YET, SERVE_BUSY_MESSAGE);
	end();
}
