/* peer_serve.c - the serving parent and its children.
 *
 *   serving parent ─┬─ child: answers one client, exits
 *                   ├─ child ...
 *                   ├─ subscriber: tells the tracker what is held, exits
 *                   └─ (fetcher: forked before, reaped here)
 *
 * The parent does nothing that could block, and nothing with what clients send:
 * it accepts, forks and reaps. A child trusts nothing that it reads, and is
 * alone with its client; whatever happens to it happens to no other. */
#define _GNU_SOURCE	/* ppoll, before POSIX.1-2024 */
#include "peer_serve.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#if defined(__linux__) && !defined(PORTABLE)
#define HAVE_SENDFILE 1
#include <sys/sendfile.h>
#endif

#include "clock.h"
#include "log.h"
#include "process.h"

#define IDLE_MS 30000		/* until the next request begins */
#define REQUEST_MS 10000	/* from a request's first byte to its last */
#define FLOOR_MS 30000		/* a client has to take, in every such time, */
#define FLOOR_BYTES (30 << 10)	/* so many bytes */
#define LINGER_MS 2000		/* for a client to read a last message */
#define PAUSE_MS 100		/* after accept or fork failed for want of something */
#define ACCEPTS_AT_ONCE 64	/* before the parent looks up again */
#define TOKENS_MAX 10		/* for sending, in store */
#define TOKENS_MS 10		/* between two looks at whether more are due */
#define SUBSCRIBE_MS 600000	/* between two subscriptions */
#define RETRY_MS 10000		/* after a subscription that failed, and for its answer */

#ifndef MSG_MORE
#define MSG_MORE 0		/* "more follows": a hint, where it exists */
#endif

/* ---- a child ----------------------------------------------------------------- */

#define REQUESTS_AHEAD 64			/* read in one go */
#define OUT_SIZE ((size_t)128 << 10)		/* answers sent in one go */
#define COPIED_MAX ((size_t)32 << 10)		/* a larger chunk goes by sendfile */
#define SEND_MAX ((size_t)1 << 30)		/* asked of one sendfile */

/* The child's one client. It is static so that a new child touches only the
 * pages that it uses. */
static struct {
	int fd;
	const struct datafile *files;
	size_t file_count;
	const struct datafile *open_file;	/* the one that data_fd is open for */
	int data_fd;
	size_t in_used;
	size_t out_used;
	int64_t floor_start_ms;			/* 0: not waiting for the client to take data */
	uint64_t floor_bytes;			/* sent since then */
	const struct upload_limit *limit;	/* NULL: none */
	size_t allowed;				/* bytes that may be sent before the next token */
	uint8_t in[REQUESTS_AHEAD * PEER_REQUEST_SIZE];
	uint8_t out[OUT_SIZE];
} client;

static int wait_for(short events, int64_t deadline_ms)
{
	struct pollfd p = {.fd = client.fd, .events = events};
	int n;

	while ((n = poll(&p, 1, clock_poll_timeout(deadline_ms))) < 0 && errno == EINTR)
		;
	return n > 0 ? 0 : -1;
}

/* Waits until the client takes more; -1 when it takes less than the floor. */
static int wait_to_send(void)
{
	int64_t now = clock_ms();

	if (client.floor_start_ms == 0 || now - client.floor_start_ms >= FLOOR_MS) {
		if (client.floor_start_ms != 0 && client.floor_bytes < FLOOR_BYTES)
			return -1;
		client.floor_start_ms = now;
		client.floor_bytes = 0;
	}
	if (wait_for(POLLOUT, client.floor_start_ms + FLOOR_MS) == 0)
		return 0;
	return client.floor_bytes >= FLOOR_BYTES ? wait_to_send() : -1;
}

/* What to do when nothing was sent: 0 to try again, or -1. */
static int after_refused_send(void)
{
	if (errno == EINTR)
		return 0;
	return errno == EAGAIN || errno == EWOULDBLOCK ? wait_to_send() : -1;
}

void serve_client_limit(const struct upload_limit *limit)
{
	client.limit = limit;
}

/* How many of size bytes may be sent now; waits until some may. 0: never. */
static size_t allowance(uint64_t size)
{
	const struct upload_limit *limit = client.limit;
	struct pollfd p;
	char token;
	ssize_t n;

	if (limit == NULL)
		return size < SEND_MAX ? (size_t)size : SEND_MAX;
	p = (struct pollfd){.fd = limit->tokens[0], .events = POLLIN};
	while (client.allowed == 0) {
		n = read(limit->tokens[0], &token, 1);
		if (n == 1)
			client.allowed = limit->token_bytes;
		else if (n == 0 || (errno != EAGAIN && errno != EINTR) ||
			 (poll(&p, 1, -1) < 0 && errno != EINTR))
			return 0;
	}
	return size < client.allowed ? (size_t)size : client.allowed;
}

/* n bytes have been sent. */
static void account(ssize_t n)
{
	client.floor_bytes += (uint64_t)n;
	if (client.limit != NULL)
		client.allowed -= (size_t)n;
}

static int send_bytes(const uint8_t *bytes, size_t size, int flags)
{
	while (size > 0) {
		size_t now = allowance(size);
		ssize_t n = now == 0 ? -1 : send(client.fd, bytes, now, flags | MSG_NOSIGNAL);
		if (n < 0) {
			if (now == 0 || after_refused_send() < 0)
				return -1;
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
	return send_bytes(client.out, size, flags);
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
			return -1;	/* the file has shrunk */
		if (n < 0) {
			if (after_refused_send() < 0)
				return -1;
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
			return -1;
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

static int answer_error(enum peer_status status, const char *message)
{
	size_t length = strlen(message);

	if (make_room(PEER_RESPONSE_SIZE + length) < 0)
		return -1;
	put_header((uint8_t)status, length);
	memcpy(client.out + client.out_used, message, length);
	client.out_used += length;
	return 0;
}

/* Opens the data file, unless it is open already. It must still be the file
 * that was checked: whoever put another in its place may have other bytes. */
static int open_data(const struct datafile *file)
{
	struct stat st;

	if (client.open_file == file)
		return 0;
	if (client.data_fd >= 0)
		close(client.data_fd);
	client.open_file = NULL;
	client.data_fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (client.data_fd < 0 || fstat(client.data_fd, &st) < 0 || st.st_dev != file->device ||
	    st.st_ino != file->inode)
		return -1;
	client.open_file = file;
	return 0;
}

static int answer_chunk(const struct datafile *file, uint64_t chunk)
{
	uint64_t offset = metafile_chunk_offset(&file->meta, chunk);
	uint64_t length = metafile_chunk_length(&file->meta, chunk);

	if (length > COPIED_MAX) {
		if (make_room(PEER_RESPONSE_SIZE) < 0)
			return -1;
		put_header(PEER_OK, length);
		return flush_out(MSG_MORE) < 0 ? -1 : send_data(offset, length);
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
	return 0;
}

static const struct datafile *find_file(const uint8_t hash[SHA256_HASH_SIZE])
{
	for (size_t i = 0; i < client.file_count; i++)
		if (memcmp(client.files[i].meta.cascade_hash, hash, SHA256_HASH_SIZE) == 0)
			return &client.files[i];
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
	shutdown(client.fd, SHUT_WR);
	while (n != 0 && wait_for(POLLIN, deadline_ms) == 0) {
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
	const struct datafile *file;

	if (!peer_request_decode(&request, bytes))
		return answer_and_close(PEER_BAD_REQUEST, "a request begins with CASCADE1");
	file = find_file(request.cascade_hash);
	if (file == NULL)
		return answer_and_close(PEER_NO_FILE, "this peer doesn't have that file");
	if (request.chunk >= file->meta.chunks)
		return answer_and_close(PEER_NO_SUCH_CHUNK, "the file has no such chunk");
	if (!held_has(file->held, request.chunk))
		return answer_error(PEER_NO_CHUNK_YET, "this peer doesn't have that chunk yet");
	if (open_data(file) < 0)
		return answer_and_close(PEER_NO_FILE, "this peer doesn't have that file any more");
	return answer_chunk(file, request.chunk);
}

/* Waits for more bytes of requests, after sending what is due. 0, or -1 at the
 * end of it all. */
static int read_more(int64_t begun_ms)
{
	int64_t deadline_ms = client.in_used > 0 ? begun_ms + REQUEST_MS : clock_ms() + IDLE_MS;
	ssize_t n;

	if (flush_out(0) < 0)
		return -1;
	client.floor_start_ms = 0;
	for (;;) {
		n = recv(client.fd, client.in + client.in_used, sizeof client.in - client.in_used, 0);
		if (n > 0) {
			client.in_used += (size_t)n;
			return 0;
		}
		if (n == 0 && client.in_used > 0)
			return answer_and_close(PEER_BAD_REQUEST, "the request ended too soon: it has 64 bytes");
		if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
			return -1;
		if (wait_for(POLLIN, deadline_ms) < 0) {
			if (client.in_used > 0)
				return answer_and_close(PEER_BAD_REQUEST, "the request took too long");
			return -1;
		}
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
	memmove(client.in, client.in + done, client.in_used);
	/* Whoever types a request by hand hears at once that it is none. */
	if (!peer_request_begins(client.in, client.in_used))
		return answer_and_close(PEER_BAD_REQUEST, "a request begins with CASCADE1");
	return 0;
}

void serve_client(int fd, const struct datafile files[], size_t count)
{
	int64_t begun_ms = 0;

	client.fd = fd;
	client.files = files;
	client.file_count = count;
	client.open_file = NULL;
	client.data_fd = -1;
	client.in_used = client.out_used = 0;
	fcntl(fd, F_SETFL, O_NONBLOCK);
	for (;;) {
		bool fresh = client.in_used == 0;
		if (read_more(begun_ms) < 0)
			break;
		if (fresh)
			begun_ms = clock_ms();
		if (answer_requests() < 0)
			break;
	}
	if (client.data_fd >= 0)
		close(client.data_fd);
}

/* ---- the parent -------------------------------------------------------------- */

/* The parent's own state. */
static const struct serve_options *options;
static pid_t *children;			/* max_clients of them; 0: free */
static unsigned child_count;
static pid_t fetcher, subscriber;	/* 0: has ended */
static bool *subscribed;		/* of each file: the tracker knows it */
static bool said_tracker_trouble;
static int64_t subscribe_at_ms;
static struct upload_limit limit;
static int64_t limit_since_ms;
static uint64_t tokens_given;		/* since then, or thrown away for want of takers */
static volatile sig_atomic_t ending;

static const int signals[] = {SIGCHLD, SIGTERM, SIGINT, SIGHUP};
#define SIGNALS (sizeof signals / sizeof signals[0])

static void on_signal(int sig)
{
	if (sig != SIGCHLD)
		ending = 1;
}

/* They are handled inside ppoll alone: none can come between a look at the
 * state and the wait. */
void serve_block_signals(void)
{
	struct sigaction action = {.sa_handler = on_signal};
	sigset_t set;

	sigemptyset(&set);
	sigfillset(&action.sa_mask);
	for (size_t i = 0; i < SIGNALS; i++) {
		struct sigaction before;
		sigaction(signals[i], NULL, &before);
		if (signals[i] == SIGHUP && before.sa_handler == SIG_IGN)
			continue;	/* nohup(1) */
		sigaddset(&set, signals[i]);
		sigaction(signals[i], &action, NULL);
	}
	sigprocmask(SIG_BLOCK, &set, NULL);
}

static bool can_subscribe(size_t i)
{
	const struct held *held = options->files[i].held;

	return atomic_load(&held->some) && (atomic_load(&held->checked) || fetcher == 0);
}

static void run_subscriber(void)
{
	static struct tracker_entry entries[TRACKER_ENTRIES_MAX];
	char why[TRACKER_WHY_SIZE];
	int failures = 0;

	for (size_t i = 0; i < options->count; i++) {
		struct tracker_request request = {.command = TRACKER_SUBSCRIBE, .self = options->self};
		if (!can_subscribe(i))
			continue;
		memcpy(request.cascade_hash, options->files[i].meta.cascade_hash, SHA256_HASH_SIZE);
		if (tracker_exchange(options->tracker_host, options->tracker_port, request, RETRY_MS,
				     entries, why) >= 0)
			continue;
		if (!said_tracker_trouble && failures++ == 0)
			log_warnx("tracker %s:%s: %s: not subscribed; tried again every 10 s",
				  options->tracker_host, options->tracker_port, why);
		failures++;
	}
	_exit(failures > 0);
}

/* Starts the subscriber if it is time to, or if something is held that the
 * tracker doesn't know of yet. */
static void subscribe_if_due(void)
{
	bool due = clock_ms() >= subscribe_at_ms && subscribe_at_ms != 0, any = false;

	if (options->tracker_host == NULL || subscriber != 0)
		return;
	for (size_t i = 0; i < options->count; i++)
		if (can_subscribe(i)) {
			any = true;
			due = due || (!subscribed[i] && !said_tracker_trouble);
		}
	if (!due || !any)
		return;
	for (size_t i = 0; i < options->count; i++)
		subscribed[i] = can_subscribe(i);
	subscriber = process_fork("subscriber");
	if (subscriber == 0)
		run_subscriber();
	if (subscriber < 0) {
		log_warn("can't fork the subscriber");
		subscriber = 0;
		subscribe_at_ms = clock_ms() + RETRY_MS;
	}
}

static void subscriber_ended(int status)
{
	bool good = WIFEXITED(status) && WEXITSTATUS(status) == 0;

	subscriber = 0;
	said_tracker_trouble = !good;
	subscribe_at_ms = clock_ms() + (good ? SUBSCRIBE_MS : RETRY_MS);
}

static void child_ended(pid_t pid, int status)
{
	for (unsigned i = 0; i < options->max_clients; i++)
		if (children[i] == pid) {
			children[i] = 0;
			child_count--;
			if (WIFSIGNALED(status) && !ending)
				log_warnx("child %ld: %s", (long)pid, process_end_text(status));
			return;
		}
}

static void reap(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == fetcher) {
			const char *how = process_end_text(status);
			fetcher = 0;
			if (how != NULL)
				log_warnx("the fetcher has ended: %s; what is held is still served", how);
		} else if (pid == subscriber) {
			subscriber_ended(status);
		} else {
			child_ended(pid, status);
		}
	}
}

/* Says that there is no room, in the words of the protocol: a status that
 * means "ask again later". */
static void turn_away(int fd)
{
	static const char message[] = "this peer has too much to do";
	uint8_t answer[PEER_RESPONSE_SIZE + sizeof message - 1];

	peer_response_encode(answer, &(struct peer_response){
		.status = PEER_NO_CHUNK_YET, .length = sizeof message - 1});
	memcpy(answer + PEER_RESPONSE_SIZE, message, sizeof message - 1);
	(void)!send(fd, answer, sizeof answer, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* False: there could be no process. */
static bool start_child(int fd)
{
	unsigned i = 0;

	while (children[i] != 0)
		i++;
	pid_t pid = process_fork("child");
	if (pid == 0) {
		close(options->listen_fd);
		close(options->news);
		if (limit.token_bytes > 0) {
			close(limit.tokens[1]);
			serve_client_limit(&limit);
		}
		serve_client(fd, options->files, options->count);
		_exit(EXIT_SUCCESS);
	}
	if (pid < 0)
		return false;
	children[i] = pid;
	child_count++;
	return true;
}

/* Takes clients that wait. Returns how long to leave the others waiting. */
static int accept_clients(void)
{
	for (int i = 0; i < ACCEPTS_AT_ONCE && child_count < options->max_clients; i++) {
		int fd = accept(options->listen_fd, NULL, NULL);
		if (fd < 0) {
			if (errno == EAGAIN || errno == EWOULDBLOCK)
				return 0;
			if (errno == EINTR || errno == ECONNABORTED || errno == EPROTO)
				continue;
			log_warn("can't accept a connection");
			return PAUSE_MS;
		}
		bool started = start_child(fd);
		if (!started) {
			log_warn("can't fork for a client");
			turn_away(fd);
		}
		close(fd);
		if (!started)
			return PAUSE_MS;
	}
	return 0;
}

static void read_news(void)
{
	char bytes[64];

	while (read(options->news, bytes, sizeof bytes) > 0)
		;
}

/* A token is what may be sent in 10 ms, but no less than 1 KiB. */
static void start_limit(void)
{
	uint64_t bytes = options->max_upload / 100;

	if (options->max_upload == 0)
		return;
	if (pipe(limit.tokens) < 0)
		fatal("can't make a pipe");
	fcntl(limit.tokens[0], F_SETFL, O_NONBLOCK);
	fcntl(limit.tokens[1], F_SETFL, O_NONBLOCK);
	limit.token_bytes = bytes < 1024 ? 1024 : bytes > SEND_MAX ? SEND_MAX : (size_t)bytes;
	limit_since_ms = clock_ms();
}

/* Gives the tokens that have become due, while somebody is there to use them.
 * Those that nobody took stay, up to a tenth of a second's. */
static void give_tokens(void)
{
	static const char tokens[TOKENS_MAX];
	double bytes = (double)(clock_ms() - limit_since_ms) / 1000 * (double)options->max_upload;
	uint64_t due = (uint64_t)(bytes / (double)limit.token_bytes) - tokens_given;
	int unused = 0;

	tokens_given += due;
	if (due == 0 || ioctl(limit.tokens[0], FIONREAD, &unused) < 0 || unused >= TOKENS_MAX)
		return;
	if (due > (uint64_t)(TOKENS_MAX - unused))
		due = (uint64_t)(TOKENS_MAX - unused);
	(void)!write(limit.tokens[1], tokens, (size_t)due);
}

static void wait_and_handle(int64_t *accept_at_ms)
{
	int64_t now = clock_ms(), next_ms = now + 3600000;
	bool room = child_count < options->max_clients;
	sigset_t none;

	if (subscribe_at_ms != 0 && subscriber == 0 && subscribe_at_ms < next_ms)
		next_ms = subscribe_at_ms;
	if (room && *accept_at_ms > now && *accept_at_ms < next_ms)
		next_ms = *accept_at_ms;
	if (limit.token_bytes > 0 && child_count > 0) {
		give_tokens();
		next_ms = now + TOKENS_MS;
	}
	struct pollfd polled[2] = {
		{.fd = room && *accept_at_ms <= now ? options->listen_fd : -1, .events = POLLIN},
		{.fd = fetcher != 0 ? options->news : -1, .events = POLLIN},
	};
	int ms = clock_poll_timeout(next_ms);
	struct timespec timeout = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
	sigemptyset(&none);
	int n = ppoll(polled, 2, &timeout, &none);
	if (n < 0 && errno != EINTR) {
		log_warn("ppoll");
		*accept_at_ms = now + PAUSE_MS;
	}
	if (n > 0 && polled[0].revents != 0)
		*accept_at_ms = clock_ms() + accept_clients();
	if (n > 0 && polled[1].revents != 0)
		read_news();
}

static void end_children(void)
{
	for (unsigned i = 0; i < options->max_clients; i++)
		if (children[i] != 0)
			kill(children[i], SIGTERM);
	if (fetcher != 0)
		kill(fetcher, SIGTERM);
	if (subscriber != 0)
		kill(subscriber, SIGTERM);
	while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
		;
}

void serve(const struct serve_options *serve_options)
{
	int64_t accept_at_ms = 0;

	options = serve_options;
	fetcher = options->fetcher;
	children = calloc(options->max_clients, sizeof *children);
	subscribed = calloc(options->count, sizeof *subscribed);
	if (children == NULL || subscribed == NULL)
		fatal("memory");
	start_limit();
	while (!ending) {
		reap();
		subscribe_if_due();
		wait_and_handle(&accept_at_ms);
	}
	end_children();
}
