/* load.c - asks a serving peer for chunks, as many clients at a time, and
 * measures. One process, one thread, epoll.
 *
 *   load [options] IP PORT FILE.cascade     random chunks of FILE
 *   load -r [-t SECONDS] IP PORT            only read what comes
 *
 *   -c CLIENTS   connections at a time (1)
 *   -k           keep each connection for all its requests; else one for each
 *   -d DEPTH     requests ahead on each connection, with -k (1)
 *   -t SECONDS   end after so long (3)
 *   -n COUNT     end after so many answers (no limit)
 *   -H           check the SHA-256 of each chunk
 *
 * Every answer must have status 0 and its chunk's length. Whatever else happens
 * to a request is an error, and the client begins anew. One line of results:
 * requests/s, bytes/s, the median, 99th percentile and maximum of the time in
 * microseconds, answers, errors. The time of a request begins with its
 * connection, where it has one of its own, and those still unanswered at the
 * end count for the maximum. Exit status 1 if there was an error or no answer. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/args.h"
#include "base/log.h"
#include "file/metafile.h"
#include "net/wire.h"
#include "sha256.h"

#define DEPTH_MAX 64
#define EVENTS_MAX 256
#define PIECE_SIZE ((size_t)256 << 10)	/* read at a time */
#define TICK_MS 50			/* between two looks at the time */
#define SETTLE_US 200000		/* before the next try after an error at once */

/* A request that was sent and not yet answered. */
struct asked {
	double since_us;
	uint64_t chunk;
};

struct client {
	int fd;				/* -1: no connection */
	bool connected;
	double retry_us;		/* with fd -1: when to connect; 0: never */
	struct asked asked[DEPTH_MAX];	/* a ring, the oldest at first */
	unsigned first, waiting;
	uint8_t header[PEER_RESPONSE_SIZE];
	uint64_t got;			/* bytes of the present answer, header included */
	SHA256_CTX sha;
};

static struct {
	unsigned clients, depth;
	double seconds;
	uint64_t count;			/* 0: no limit */
	bool keep, check_hashes, read_only;
} settings = {.clients = 1, .depth = 1, .seconds = 3};

static struct sockaddr_in server;
static struct metafile meta;
static int epoll_fd;
static uint64_t begun, answers, errors, bytes;
static float *times_us;			/* one for each answer */
static size_t times_room;

static double now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void record(double us)
{
	if (answers == times_room) {
		times_room = times_room == 0 ? 1 << 16 : times_room * 2;
		times_us = realloc(times_us, times_room * sizeof *times_us);
		if (times_us == NULL)
			fatal("memory");
	}
	times_us[answers++] = (float)us;
}

static bool may_begin(void)
{
	return settings.count == 0 || begun < settings.count;
}

static void watch(struct client *c, int operation, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.ptr = c};

	if (epoll_ctl(epoll_fd, operation, c->fd, &event) < 0)
		fatal("epoll_ctl");
}

static void begin_client(struct client *c)
{
	int on = 1;

	c->connected = false;
	c->first = c->waiting = 0;
	c->got = 0;
	c->retry_us = 0;
	c->fd = -1;
	if (!may_begin())
		return;
	c->asked[0].since_us = now_us();
	c->fd = socket(AF_INET, SOCK_STREAM, 0);
	if (c->fd < 0)
		fatal("can't make a socket");
	fcntl(c->fd, F_SETFL, O_NONBLOCK);
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (connect(c->fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS)
		fatal("can't connect");
	watch(c, EPOLL_CTL_ADD, EPOLLOUT);
}

/* The connection ends, and with it what was asked over it. */
static void end_client(struct client *c, bool failed)
{
	if (failed) {
		errors += c->waiting == 0 ? 1 : c->waiting;
		c->retry_us = now_us() + SETTLE_US;
	}
	close(c->fd);
	c->fd = -1;
	if (!failed)
		begin_client(c);
}

/* Asks for as many chunks as may be asked ahead; false if that fails. */
static bool ask(struct client *c)
{
	uint8_t out[DEPTH_MAX * PEER_REQUEST_SIZE];
	unsigned depth = settings.keep ? settings.depth : 1;
	double now = now_us();
	size_t size = 0;

	for (; c->waiting < depth && may_begin(); begun++) {
		struct asked *asked = &c->asked[(c->first + c->waiting++) % DEPTH_MAX];
		struct peer_request request = {.chunk = (uint64_t)random() % meta.chunks};
		asked->chunk = request.chunk;
		if (settings.keep)
			asked->since_us = now;
		memcpy(request.cascade_hash, meta.cascade_hash, SHA256_HASH_SIZE);
		peer_request_encode(out + size, &request);
		size += PEER_REQUEST_SIZE;
	}
	return size == 0 || send(c->fd, out, size, MSG_NOSIGNAL) == (ssize_t)size;
}

static void connection_made(struct client *c)
{
	int error = 0;
	socklen_t length = sizeof error;

	getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
	c->connected = true;
	if (error != 0 || (!settings.read_only && !ask(c)))
		end_client(c, true);
	else
		watch(c, EPOLL_CTL_MOD, EPOLLIN);
}

static bool hash_is_right(struct client *c, uint64_t chunk)
{
	uint8_t hash[SHA256_HASH_SIZE];
	const uint8_t *right;

	if (!settings.check_hashes)
		return true;
	sha256_final(&c->sha, hash);
	right = metafile_chunk_hash(&meta, chunk);
	if (right == NULL)
		fatal("%s", meta.path);
	return memcmp(hash, right, sizeof hash) == 0;
}

/* Takes what belongs to the present answer off the bytes that came. Returns
 * how many; or 0 if the answer is wrong. */
static size_t take(struct client *c, const uint8_t *in, size_t size, bool *whole)
{
	const struct asked *asked = &c->asked[c->first];
	struct peer_response response;
	size_t taken = 0;

	*whole = false;
	if (c->waiting == 0)
		return 0;
	for (; c->got < PEER_RESPONSE_SIZE && taken < size; taken++)
		c->header[c->got++] = in[taken];
	if (c->got < PEER_RESPONSE_SIZE)
		return taken;
	peer_response_decode(&response, c->header);
	if (response.status != PEER_OK || response.length != metafile_chunk_length(&meta, asked->chunk))
		return 0;
	if (c->got == PEER_RESPONSE_SIZE && settings.check_hashes)
		sha256_init(&c->sha);
	uint64_t left = PEER_RESPONSE_SIZE + response.length - c->got;
	size_t body = size - taken < left ? size - taken : (size_t)left;
	if (settings.check_hashes)
		sha256_update(&c->sha, in + taken, body);
	c->got += body;
	if (body == left) {
		if (!hash_is_right(c, asked->chunk))
			return 0;
		*whole = true;
	}
	return taken + body;
}

static void bytes_came(struct client *c)
{
	static uint8_t in[PIECE_SIZE];
	ssize_t n = recv(c->fd, in, sizeof in, 0);
	size_t done = 0;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		end_client(c, true);
		return;
	}
	bytes += (uint64_t)n;
	while (!settings.read_only && done < (size_t)n) {
		bool whole;
		size_t taken = take(c, in + done, (size_t)n - done, &whole);
		if (taken == 0) {
			end_client(c, true);
			return;
		}
		done += taken;
		if (!whole)
			continue;
		record(now_us() - c->asked[c->first].since_us);
		c->first = (c->first + 1) % DEPTH_MAX;
		c->waiting--;
		c->got = 0;
	}
	if (settings.read_only || c->waiting > 0) {
		if (!settings.read_only && settings.keep && !ask(c))
			end_client(c, true);
	} else if (!settings.keep || !may_begin()) {
		end_client(c, false);
	} else if (!ask(c)) {
		end_client(c, true);
	}
}

static int compare(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

static double percentile(double part)
{
	return answers == 0 ? 0 : (double)times_us[(size_t)((double)(answers - 1) * part)];
}

static void print_results(const struct client *clients, double took_us)
{
	double max, now = now_us();

	qsort(times_us, answers, sizeof *times_us, compare);
	max = percentile(1);
	for (unsigned i = 0; i < settings.clients && !settings.read_only; i++) {
		const struct client *c = &clients[i];
		if (c->fd >= 0 && now - c->asked[c->first].since_us > max)
			max = now - c->asked[c->first].since_us;
	}
	printf("requests/s %.1f  bytes/s %.0f  p50 %.0f  p99 %.0f  max %.0f  answers %llu  errors %llu\n",
	       (double)answers / took_us * 1e6, (double)bytes / took_us * 1e6, percentile(0.5),
	       percentile(0.99), max, (unsigned long long)answers, (unsigned long long)errors);
}

static void run(void)
{
	struct client *clients = calloc(settings.clients, sizeof *clients);
	struct epoll_event events[EVENTS_MAX];
	double start_us = now_us(), end_us = start_us + settings.seconds * 1e6, now;

	epoll_fd = epoll_create1(0);
	if (clients == NULL || epoll_fd < 0)
		fatal("can't begin");
	for (unsigned i = 0; i < settings.clients; i++)
		begin_client(&clients[i]);
	while ((now = now_us()) < end_us && (settings.count == 0 || answers + errors < settings.count)) {
		int n = epoll_wait(epoll_fd, events, EVENTS_MAX, TICK_MS);
		for (int i = 0; i < n; i++) {
			struct client *c = events[i].data.ptr;
			if (!c->connected)
				connection_made(c);
			else
				bytes_came(c);
		}
		for (unsigned i = 0; i < settings.clients && errors > 0; i++)
			if (clients[i].fd < 0 && clients[i].retry_us != 0 && clients[i].retry_us < now)
				begin_client(&clients[i]);
	}
	print_results(clients, now - start_us);
}

static void misuse(void)
{
	fputs("usage: load [-kH] [-c CLIENTS] [-d DEPTH] [-t SECONDS] [-n COUNT] IP PORT FILE.cascade\n"
	      "       load -r [-t SECONDS] IP PORT\n", stderr);
	exit(2);
}

static uint64_t parse(const char *text, uint64_t max)
{
	uint64_t number;

	if (!args_number(text, 1, max, &number))
		misuse();
	return number;
}

int main(int argc, char **argv)
{
	struct address address;
	const char *why;
	int option;

	log_program("load");
	while ((option = getopt(argc, argv, "c:kd:t:n:Hr")) != -1)
		switch (option) {
		case 'c': settings.clients = (unsigned)parse(optarg, 100000); break;
		case 'k': settings.keep = true; break;
		case 'd': settings.depth = (unsigned)parse(optarg, DEPTH_MAX); break;
		case 't': settings.seconds = (double)parse(optarg, 86400); break;
		case 'n': settings.count = parse(optarg, UINT64_MAX); break;
		case 'H': settings.check_hashes = true; break;
		case 'r': settings.read_only = true; break;
		default: misuse();
		}
	argv += optind;
	if (argc - optind != (settings.read_only ? 2 : 3) || !args_ip(argv[0], &address.ip) ||
	    !args_port(argv[1], 1, &address.port))
		misuse();
	if (!settings.read_only && metafile_open(&meta, argv[2], &why) < 0)
		fatalx("%s: %s", argv[2], why);
	if (!settings.read_only && meta.chunks == 0)
		fatalx("%s: there is nothing to ask for", argv[2]);
	server = address_to_sockaddr(address);
	run();
	return errors > 0 || bytes == 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
