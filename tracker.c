/* tracker.c - the tracker: knows which peers are active for which file.
 *
 * One process and one loop around poll, because all clients share its state
 * and every message is tiny. Memory is bounded everywhere: at a bound, what is
 * oldest gives way. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/args.h"
#include "base/clock.h"
#include "csapp.h"
#include "base/log.h"
#include "file/metafile.h"
#include "net/wire.h"

#define DEFAULT_PORT 8888
#define FILES_MAX 4096		/* files tracked at a time */
#define PEERS_MAX 1024		/* peers known of a file */
#define CLIENTS_MAX 512		/* connections at a time */
#define ACCEPTS_AT_ONCE 64	/* before those that have come are read from */
#define ANSWER_PEERS_MAX 20	/* peers in one answer: more would overflow some peers' buffers */
#define PEER_AGE_MAX_S 1800	/* a peer not seen for that long is left out */
#define CLIENT_DEADLINE_MS 10000	/* for a request to arrive and its answer to leave */
#define ACCEPT_PAUSE_MS 100	/* after accept failed for want of something */

static const char usage_text[] =
	"usage: tracker [-a ADDR] [-p PORT] [-g GOOD_IP]... [--ban-private] [FILE.cascade | HASH]...\n";

static const char help_text[] =
	"Knows which peers are active. With no FILE or HASH, for any file.\n"
	"\n"
	"  -a, --address ADDR  listen on this IPv4 address (default 0.0.0.0)\n"
	"  -p, --port PORT     listen on this port, 0 for any that is free (default 8888)\n"
	"  -g, --good GOOD_IP  vouch for peers at this address\n"
	"      --ban-private   let no peer subscribe with a private address\n"
	"  -q, --quiet         say nothing but errors\n"
	"  -v, --verbose       tell of every request\n"
	"  -h, --help          print this and exit\n"
	"  -V, --version       print the version and exit\n";

/* ---- what is known ------------------------------------------------------- */

struct peer {
	struct address address;
	uint32_t last_seen;	/* seconds since the epoch */
};

struct file {
	uint8_t cascade_hash[SHA256_HASH_SIZE];
	uint32_t last_seen;
	size_t count, room;	/* peers in use, and allocated */
	struct peer *peers;
};

/* Set up by the arguments; after that only subscribe() changes files. */
static struct file files[FILES_MAX];
static size_t file_count;
static bool only_these_files, ban_private;
static uint32_t *good_ips;
static size_t good_ip_count;

static uint32_t now_s(void)
{
	return (uint32_t)time(NULL);
}

static bool is_good(uint32_t ip)
{
	for (size_t i = 0; i < good_ip_count; i++)
		if (good_ips[i] == ip)
			return true;
	return false;
}

/* RFC 1918, and the loopback and link-local ranges of RFC 6890. */
static bool is_private(uint32_t ip)
{
	return ip >> 24 == 10 || ip >> 20 == (172 << 4 | 1) || ip >> 16 == (192 << 8 | 168) ||
	       ip >> 24 == 127 || ip >> 16 == (169 << 8 | 254);
}

static struct file *find_file(const uint8_t hash[SHA256_HASH_SIZE])
{
	for (size_t i = 0; i < file_count; i++)
		if (memcmp(files[i].cascade_hash, hash, SHA256_HASH_SIZE) == 0)
			return &files[i];
	return NULL;
}

/* Makes room for a file, if need be at the cost of the one that nobody has
 * subscribed to for longest. */
static struct file *add_file(const uint8_t hash[SHA256_HASH_SIZE])
{
	struct file *file = &files[0];

	if (file_count < FILES_MAX)
		file = &files[file_count++];
	else
		for (size_t i = 1; i < FILES_MAX; i++)
			if (files[i].last_seen < file->last_seen)
				file = &files[i];
	file->count = 0;
	memcpy(file->cascade_hash, hash, SHA256_HASH_SIZE);
	return file;
}

/* Finds the peer, or makes room for it in the same manner. NULL: no memory. */
static struct peer *find_or_add_peer(struct file *file, struct address a)
{
	size_t oldest = 0;

	for (size_t i = 0; i < file->count; i++) {
		struct peer *peer = &file->peers[i];
		if (peer->address.ip == a.ip && peer->address.port == a.port)
			return peer;
		if (peer->last_seen < file->peers[oldest].last_seen)
			oldest = i;
	}
	if (file->count == PEERS_MAX)
		return &file->peers[oldest];
	if (file->count == file->room) {
		size_t room = file->room == 0 ? 8 : 2 * file->room;
		struct peer *grown = realloc(file->peers, room * sizeof *grown);
		if (grown == NULL)
			return NULL;
		file->peers = grown;
		file->room = room;
	}
	return &file->peers[file->count++];
}

/* ---- answering ----------------------------------------------------------- */

#define ANSWER_SIZE (TRACKER_RESPONSE_SIZE + ANSWER_PEERS_MAX * TRACKER_ENTRY_SIZE)

/* Writes an error's answer; returns its size in bytes. */
static size_t answer_error(uint8_t answer[ANSWER_SIZE], const char *why)
{
	size_t len = strlen(why);

	if (len > ANSWER_SIZE - TRACKER_RESPONSE_SIZE)
		len = ANSWER_SIZE - TRACKER_RESPONSE_SIZE;
	tracker_response_encode(answer, &(struct tracker_response){.status = 1, .length = (uint32_t)len});
	memcpy(answer + TRACKER_RESPONSE_SIZE, why, len);
	return TRACKER_RESPONSE_SIZE + len;
}

/* Picks up to ANSWER_PEERS_MAX other peers: the good ones, then any, each in
 * random order. Returns how many. */
static size_t pick_peers(const struct file *file, struct address requester,
			 struct tracker_entry picked[ANSWER_PEERS_MAX])
{
	static size_t candidates[PEERS_MAX];
	size_t count = 0, picked_count = 0;

	for (size_t i = 0; i < file->count; i++) {
		const struct peer *peer = &file->peers[i];
		bool self = peer->address.ip == requester.ip && peer->address.port == requester.port;
		/* The clock may have been set back, and wraps in 2106. */
		if (!self && (int32_t)(now_s() - peer->last_seen) <= PEER_AGE_MAX_S)
			candidates[count++] = i;
	}
	for (size_t i = 0; i + 1 < count; i++) {	/* Fisher and Yates */
		size_t j = i + (size_t)random() % (count - i), moved = candidates[i];
		candidates[i] = candidates[j];
		candidates[j] = moved;
	}
	for (int good = 1; good >= 0; good--)
		for (size_t i = 0; i < count && picked_count < ANSWER_PEERS_MAX; i++) {
			const struct peer *peer = &file->peers[candidates[i]];
			if (is_good(peer->address.ip) == (good == 1))
				picked[picked_count++] = (struct tracker_entry){
					peer->address, peer->last_seen, good == 1};
		}
	return picked_count;
}

static size_t answer_list(uint8_t answer[ANSWER_SIZE], const struct file *file,
			  struct address requester)
{
	struct tracker_entry picked[ANSWER_PEERS_MAX];
	size_t count = file == NULL ? 0 : pick_peers(file, requester, picked);

	tracker_response_encode(answer, &(struct tracker_response){
		.status = 0, .length = (uint32_t)(count * TRACKER_ENTRY_SIZE)});
	for (size_t i = 0; i < count; i++)
		tracker_entry_encode(answer + TRACKER_RESPONSE_SIZE + i * TRACKER_ENTRY_SIZE, &picked[i]);
	return TRACKER_RESPONSE_SIZE + count * TRACKER_ENTRY_SIZE;
}

/* Returns why the requester may not subscribe, or NULL. */
static const char *refuse_subscription(struct address self, struct address source)
{
	if (self.port == 0)
		return "a peer can't listen on port 0";
	if (self.ip == 0)
		return "0.0.0.0 is no address to reach a peer at";
	if (ban_private && is_private(self.ip))
		return "this tracker takes no private addresses";
	if (is_good(self.ip) && self.ip != source.ip)
		return "that address may subscribe only from itself";
	return NULL;
}

/* Returns NULL, or why it didn't work. */
static const char *subscribe(struct file *file, const struct tracker_request *request)
{
	char text[ADDRESS_TEXT_SIZE];

	if (file == NULL)
		file = add_file(request->cascade_hash);
	size_t before = file->count;
	struct peer *peer = find_or_add_peer(file, request->self);
	if (peer == NULL)
		return "this tracker has no memory left";
	*peer = (struct peer){request->self, now_s()};
	file->last_seen = now_s();
	if (file->count > before)
		log_info("%s is new, for %02x%02x%02x%02x...", address_text(request->self, text),
			 file->cascade_hash[0], file->cascade_hash[1], file->cascade_hash[2],
			 file->cascade_hash[3]);
	return NULL;
}

/* Writes the answer to a whole request; returns its size in bytes. */
static size_t answer_request(uint8_t answer[ANSWER_SIZE], const struct tracker_request *request,
			     struct address source)
{
	struct file *file = find_file(request->cascade_hash);
	const char *why = NULL;

	if (file == NULL && only_these_files)
		return answer_error(answer, "this tracker doesn't track that file");
	if (request->command == TRACKER_SUBSCRIBE) {
		why = refuse_subscription(request->self, source);
		if (why == NULL)
			why = subscribe(file, request);
		file = find_file(request->cascade_hash);
	}
	return why != NULL ? answer_error(answer, why) : answer_list(answer, file, request->self);
}

/* ---- clients ------------------------------------------------------------- */

/* A client sends one request and gets one answer. After that its connection is
 * closed for writing, and what still comes is thrown away until it closes its
 * side: closing at once, with bytes unread, could destroy the answer on its
 * way (RFC 1122, 4.2.2.13). */
struct client {
	int fd;
	struct address source;
	int64_t deadline_ms;
	size_t got;
	bool answered;
	uint8_t request[TRACKER_REQUEST_SIZE];
};

static struct client clients[CLIENTS_MAX];
static size_t client_count;

static void drop_client(size_t i)
{
	close(clients[i].fd);
	clients[i] = clients[--client_count];
}

static size_t nearest_deadline(void)
{
	size_t nearest = 0;

	for (size_t i = 1; i < client_count; i++)
		if (clients[i].deadline_ms < clients[nearest].deadline_ms)
			nearest = i;
	return nearest;
}

static void answer_client(struct client *client, const char *why)
{
	uint8_t answer[ANSWER_SIZE];
	char text[ADDRESS_TEXT_SIZE];
	struct tracker_request request;
	size_t size;

	if (why == NULL)
		why = tracker_request_decode(&request, client->request, client->got);
	if (why != NULL)
		size = answer_error(answer, why);
	else
		size = answer_request(answer, &request, client->source);
	log_debug("%s: %s", address_text(client->source, text),
		  why != NULL ? why : request.command == TRACKER_LIST ? "lists" : "subscribes");
	/* One write, since some peers read the first bytes with one recv. The
	 * answer is far smaller than the buffer of a new socket; if it doesn't
	 * go, the client isn't there. */
	if (send(client->fd, answer, size, MSG_NOSIGNAL) != (ssize_t)size)
		client->deadline_ms = 0;
	shutdown(client->fd, SHUT_WR);
	client->answered = true;
}

/* Reads what has come. False: the client has gone. */
static bool read_client(struct client *client)
{
	uint8_t rest[4096];
	struct tracker_request request;
	const char *why;
	ssize_t n;

	if (client->answered)
		n = read(client->fd, rest, sizeof rest);
	else
		n = read(client->fd, client->request + client->got, sizeof client->request - client->got);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	if (n == 0 && (client->answered || client->got == 0))
		return false;
	if (client->answered)
		return true;
	client->got += (size_t)n;
	why = tracker_request_decode(&request, client->request, client->got);
	if (n == 0 && why == NULL)
		why = "the request ended too soon: it has 54 bytes";
	if (why != NULL || client->got == TRACKER_REQUEST_SIZE)
		answer_client(client, why);
	return true;
}

/* Takes clients that wait, but not so many that those taken before have to give
 * way unheard. Returns how long to leave the others waiting. */
static int accept_clients(int listen_fd)
{
	for (int i = 0; i < ACCEPTS_AT_ONCE; i++) {
		struct sockaddr_in sa;
		socklen_t len = sizeof sa;
		int fd = accept(listen_fd, (struct sockaddr *)&sa, &len);
		if (fd < 0) {
			if (errno == EAGAIN || errno == EWOULDBLOCK)
				return 0;
			if (errno == EINTR || errno == ECONNABORTED || errno == EPROTO)
				continue;
			log_warn("can't accept a connection");
			return ACCEPT_PAUSE_MS;
		}
		fcntl(fd, F_SETFL, O_NONBLOCK);
		if (client_count == CLIENTS_MAX)
			drop_client(nearest_deadline());
		clients[client_count++] = (struct client){
			.fd = fd,
			.source = address_from_sockaddr(&sa),
			.deadline_ms = clock_ms() + CLIENT_DEADLINE_MS,
		};
	}
	return 0;
}

static void drop_late_clients(void)
{
	int64_t now = clock_ms();

	for (size_t i = client_count; i-- > 0; )
		if (clients[i].deadline_ms <= now)
			drop_client(i);
}

/* ---- the loop ------------------------------------------------------------ */

/* Set by a signal; the pipe to itself wakes poll, whenever the signal came. */
static volatile sig_atomic_t ending;
static int wake[2];

static void on_signal(int sig)
{
	int saved = errno;

	(void)sig;
	ending = 1;
	(void)!write(wake[1], "", 1);
	errno = saved;
}

static void serve(int listen_fd)
{
	static struct pollfd polled[CLIENTS_MAX + 2];
	int64_t accept_again_ms = 0;

	while (!ending) {
		int64_t next_ms = clock_ms() + 60000;
		bool accepting = clock_ms() >= accept_again_ms;

		for (size_t i = 0; i < client_count; i++)
			polled[i] = (struct pollfd){.fd = clients[i].fd, .events = POLLIN};
		polled[client_count] = (struct pollfd){.fd = wake[0], .events = POLLIN};
		polled[client_count + 1] = (struct pollfd){.fd = accepting ? listen_fd : -1, .events = POLLIN};
		if (client_count > 0)
			next_ms = clients[nearest_deadline()].deadline_ms;
		if (!accepting && next_ms > accept_again_ms)
			next_ms = accept_again_ms;
		if (poll(polled, client_count + 2, clock_poll_timeout(next_ms)) < 0 && errno != EINTR)
			fatal("poll");
		bool incoming = polled[client_count + 1].revents != 0;
		/* From the end: dropping moves the last client into the gap. */
		for (size_t i = client_count; i-- > 0; )
			if (polled[i].revents != 0 && !read_client(&clients[i]))
				drop_client(i);
		drop_late_clients();
		if (incoming)
			accept_again_ms = clock_ms() + accept_clients(listen_fd);
	}
}

/* ---- start-up ------------------------------------------------------------ */

static void add_good_ip(const char *text)
{
	good_ips = Realloc(good_ips, (good_ip_count + 1) * sizeof *good_ips);
	if (!args_ip(text, &good_ips[good_ip_count++]))
		args_misuse("not an IPv4 address: %s", text);
}

/* Reads an operand: a hash, or a metafile that has it. */
static void add_operand(const char *text)
{
	uint8_t hash[SHA256_HASH_SIZE];
	struct metafile m;
	const char *why;

	if (!args_hash(text, hash)) {
		if (metafile_open(&m, text, &why) < 0)
			fatalx("%s: %s", text, why);
		memcpy(hash, m.cascade_hash, sizeof hash);
		metafile_close(&m);
	}
	if (find_file(hash) != NULL)
		return;
	if (file_count == FILES_MAX)
		fatalx("more than %d files", FILES_MAX);
	add_file(hash);
}

static struct address parse_arguments(int argc, char **argv)
{
	enum { BAN_PRIVATE = 256 };
	static const struct option options[] = {
		{"address", required_argument, NULL, 'a'},
		{"port", required_argument, NULL, 'p'},
		{"good", required_argument, NULL, 'g'},
		{"ban-private", no_argument, NULL, BAN_PRIVATE},
		{"quiet", no_argument, NULL, 'q'},
		{"verbose", no_argument, NULL, 'v'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{0},
	};
	struct address listen_on = {.ip = INADDR_ANY, .port = DEFAULT_PORT};
	int option;

	while ((option = getopt_long(argc, argv, "a:p:g:qvhV", options, NULL)) != -1)
		switch (option) {
		case 'a':
			if (!args_ip(optarg, &listen_on.ip))
				args_misuse("not an IPv4 address: %s", optarg);
			break;
		case 'p':
			if (!args_port(optarg, 0, &listen_on.port))
				args_misuse("not a port: %s", optarg);
			break;
		case 'g':
			add_good_ip(optarg);
			break;
		case BAN_PRIVATE:
			ban_private = true;
			break;
		case 'q':
			log_set_level(LOG_QUIET);
			break;
		case 'v':
			log_set_level(LOG_VERBOSE);
			break;
		case 'h': args_help();
		case 'V': args_version();
		default: args_misuse(NULL);
		}
	for (; optind < argc; optind++) {
		only_these_files = true;
		add_operand(argv[optind]);
	}
	return listen_on;
}

static void set_up_signals(void)
{
	if (pipe(wake) < 0)
		fatal("can't make a pipe");
	fcntl(wake[1], F_SETFL, O_NONBLOCK);
	Signal(SIGINT, on_signal);
	Signal(SIGTERM, on_signal);
	Signal(SIGPIPE, SIG_IGN);	/* a client that hangs up is an error of write */
}

int main(int argc, char **argv)
{
	args_program("tracker", usage_text, help_text);
	srandom((unsigned)time(NULL) ^ (unsigned)getpid());
	struct address listen_at = parse_arguments(argc, argv);
	set_up_signals();
	serve(address_listen(&listen_at, false));
	return 0;
}
