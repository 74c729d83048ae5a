/* tracker.c - the tracker: knows which peers are active for which file.
 *
 * One process and one loop around poll, because all clients share its state
 * and every message is tiny. Memory is bounded everywhere: at a bound, what is
 * oldest gives way, and first of all that of whoever holds most. */
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
#define SUBSCRIPTIONS_MAX 65536	/* known at a time */
#define PEERS_MAX 4096		/* of these, to one file: an answer looks at all of them */
#define BUCKETS 65536		/* of the table to find them in */
#define CLIENTS_MAX 512		/* connections at a time */
#define ACCEPTS_AT_ONCE 64	/* before those that have come are read from */
#define ANSWER_PEERS_MAX 20	/* peers in one answer: more would overflow some peers' buffers */
#define PEER_AGE_MAX_MS 1800000	/* a peer that was not heard of for that long is left out, */
#define FRESH_MS 660000		/* and for that long comes last: peers subscribe every 600 s */
#define CLIENT_DEADLINE_MS 10000	/* for a request to arrive and its answer to leave */
#define PAUSE_MS 100		/* after accept or poll failed for want of something */
#define SAID_MS 10000		/* between two messages about what happens often */

static const char usage_text[] =
	"usage: tracker [-a ADDR] [-p PORT] [-g GOOD_IP]... [--ban-private] [FILE.cascade | HASH]...\n";

static const char help_text[] =
	"Knows which peers are active. With no FILE or HASH, for any file.\n"
	"\n"
	"  -a, --address ADDR  listen on this IPv4 address (default 0.0.0.0)\n"
	"  -p, --port PORT     listen on this port, 0 for any that is free (default 8888)\n"
	"  -g, --good GOOD_IP  vouch for peers at this address\n"
	"      --ban-private   let no peer subscribe with a private address\n"
	"  -q, --quiet         say nothing but errors and \"listening on\"\n"
	"  -v, --verbose       tell of every request\n"
	"  -h, --help          print this and exit\n"
	"  -V, --version       print the version and exit\n";

/* For what may happen with every client: false if it was said just now. */
static bool may_say(int64_t *said_ms)
{
	if (*said_ms != 0 && clock_ms() - *said_ms < SAID_MS)
		return false;
	*said_ms = clock_ms();
	return true;
}

/* ---- what is known ------------------------------------------------------- */

/* What a peer said of itself, and from which address. Anybody can name any peer,
 * so the same words from two sources are two subscriptions: neither source can
 * touch what the other has said. */
struct subscription {
	uint8_t cascade_hash[SHA256_HASH_SIZE];
	struct address peer;
	uint32_t source;		/* the IPv4 address that it came from */
	int64_t seen_ms;		/* as of clock_ms: when it was last heard of */
	struct subscription *next;	/* in its bucket */
};

/* Those in use are the first; only subscribe() changes them. A bucket holds all
 * subscriptions to a file, and maybe some to others. */
static struct subscription subscriptions[SUBSCRIPTIONS_MAX];
static size_t subscription_count;
static struct subscription *buckets[BUCKETS];

/* A look at some of them: the current request's. */
static struct subscription *found[SUBSCRIPTIONS_MAX];

/* Set up by the arguments. */
static uint8_t (*tracked)[SHA256_HASH_SIZE];	/* sorted */
static size_t tracked_count;			/* 0: any file is tracked */
static bool ban_private;
static uint32_t *good_ips;
static size_t good_ip_count;
static uint32_t bucket_secret;			/* so that nobody can fill a bucket on purpose */

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

static int compare_hashes(const void *a, const void *b)
{
	return memcmp(a, b, SHA256_HASH_SIZE);
}

static bool is_tracked(const uint8_t hash[SHA256_HASH_SIZE])
{
	return tracked_count == 0 ||
	       bsearch(hash, tracked, tracked_count, sizeof *tracked, compare_hashes) != NULL;
}

#define FILE_TEXT_SIZE 12

/* The beginning of a file's hash, for people; returns text. */
static const char *file_text(const uint8_t hash[SHA256_HASH_SIZE], char text[FILE_TEXT_SIZE])
{
	snprintf(text, FILE_TEXT_SIZE, "%02x%02x%02x%02x...", hash[0], hash[1], hash[2], hash[3]);
	return text;
}

static bool same_address(struct address a, struct address b)
{
	return a.ip == b.ip && a.port == b.port;
}

static bool is_for(const struct subscription *s, const uint8_t hash[SHA256_HASH_SIZE])
{
	return memcmp(s->cascade_hash, hash, SHA256_HASH_SIZE) == 0;
}

static bool has_expired(const struct subscription *s)
{
	return clock_ms() - s->seen_ms > PEER_AGE_MAX_MS;
}

static struct subscription **bucket_of(const uint8_t hash[SHA256_HASH_SIZE])
{
	uint32_t mixed = bucket_secret;

	for (unsigned i = 0; i < SHA256_HASH_SIZE; i += 4)
		mixed = (mixed ^ decode_be32(hash + i)) * (bucket_secret | 1);
	return &buckets[(mixed >> 16) % BUCKETS];
}

/* Puts the subscriptions to the file into found. Returns how many. */
static size_t find_subscriptions(const uint8_t hash[SHA256_HASH_SIZE])
{
	size_t count = 0;

	for (struct subscription *s = *bucket_of(hash); s != NULL; s = s->next)
		if (is_for(s, hash))
			found[count++] = s;
	return count;
}

/* ---- who gives way ------------------------------------------------------- */

/* How many subscriptions each source holds, in a table of tally_size places: a
 * power of two, and at least twice as many as there are subscriptions to count,
 * so that a place is soon found. */
static struct {
	uint32_t source, count;
} tally[2 * SUBSCRIPTIONS_MAX];
static size_t tally_size;

static void clear_tally(size_t count)
{
	for (tally_size = 4; tally_size < 2 * count; tally_size *= 2)
		;
	memset(tally, 0, tally_size * sizeof tally[0]);
}

/* The source's place in the table, with a count of 0 if it has had none. */
static uint32_t *tally_of(uint32_t source)
{
	size_t i = (source * UINT32_C(2654435769) >> 8) & (tally_size - 1);

	while (tally[i].count > 0 && tally[i].source != source)
		i = (i + 1) & (tally_size - 1);
	tally[i].source = source;
	return &tally[i].count;
}

/* Which of the count subscriptions in found gives way to a new one: an expired
 * one; else the oldest one of the sources that hold most. The new one counts for
 * its source already: a source that takes more room than any other takes it from
 * itself. */
static struct subscription *choose_victim(size_t count, uint32_t new_source)
{
	struct subscription *victim = NULL;
	uint32_t most = 1;

	clear_tally(count);
	++*tally_of(new_source);
	for (size_t i = 0; i < count; i++) {
		if (has_expired(found[i]))
			return found[i];
		uint32_t held = ++*tally_of(found[i]->source);
		most = held > most ? held : most;
	}
	for (size_t i = 0; i < count; i++)
		if ((victim == NULL || found[i]->seen_ms < victim->seen_ms) && *tally_of(found[i]->source) == most)
			victim = found[i];
	return victim;
}

static void take_out_of_bucket(const struct subscription *s)
{
	struct subscription **link = bucket_of(s->cascade_hash);

	while (*link != s)
		link = &(*link)->next;
	*link = s->next;
}

/* Returns a place for a new subscription to the file; it is in no bucket. */
static struct subscription *make_room(const uint8_t hash[SHA256_HASH_SIZE], uint32_t source)
{
	static int64_t said_ms;
	char text[FILE_TEXT_SIZE];
	size_t count = find_subscriptions(hash);

	if (count < PEERS_MAX && subscription_count < SUBSCRIPTIONS_MAX)
		return &subscriptions[subscription_count++];
	if (count < PEERS_MAX)
		for (count = 0; count < subscription_count; count++)
			found[count] = &subscriptions[count];
	struct subscription *victim = choose_victim(count, source);
	if (!has_expired(victim) && may_say(&said_ms))
		log_warnx("%s%s has %zu subscriptions, and room for no more: the oldest of the source that holds most give way",
			  count == PEERS_MAX ? "file " : "this tracker",
			  count == PEERS_MAX ? file_text(hash, text) : "", count);
	take_out_of_bucket(victim);
	return victim;
}

static struct subscription *find_subscription(const struct tracker_request *request, uint32_t source)
{
	struct subscription *s = *bucket_of(request->cascade_hash);

	while (s != NULL && !(s->source == source && same_address(s->peer, request->self) &&
			      is_for(s, request->cascade_hash)))
		s = s->next;
	return s;
}

static void subscribe(const struct tracker_request *request, uint32_t source)
{
	struct subscription *s = find_subscription(request, source);
	const uint8_t *hash = request->cascade_hash;
	char peer[ADDRESS_TEXT_SIZE], file[FILE_TEXT_SIZE];

	if (s == NULL) {
		size_t before = subscription_count;
		s = make_room(hash, source);
		struct subscription **bucket = bucket_of(hash);
		*s = (struct subscription){.peer = request->self, .source = source, .next = *bucket};
		memcpy(s->cascade_hash, hash, SHA256_HASH_SIZE);
		*bucket = s;
		if (subscription_count > before)
			log_info("%s is new, for file %s", address_text(request->self, peer), file_text(hash, file));
	}
	s->seen_ms = clock_ms();
}

/* SIGUSR1. */
static void print_status(void)
{
	size_t peers = 0, files = 0;

	for (size_t i = 0; i < subscription_count; i++) {
		const struct subscription *s = &subscriptions[i], *first = *bucket_of(s->cascade_hash);
		if (has_expired(s))
			continue;
		while (!is_for(first, s->cascade_hash) || has_expired(first))
			first = first->next;
		peers++;
		files += first == s;
	}
	log_status("%zu peer%s subscribed, for %zu file%s", peers, peers == 1 ? "" : "s",
		   files, files == 1 ? "" : "s");
}

/* ---- answering ----------------------------------------------------------- */

#define ANSWER_SIZE (TRACKER_RESPONSE_SIZE + ANSWER_PEERS_MAX * TRACKER_ENTRY_SIZE)

/* Writes an error's answer, as a line: some peers read one. Returns its size in
 * bytes. */
static size_t answer_error(uint8_t answer[ANSWER_SIZE], const char *why)
{
	char *message = (char *)answer + TRACKER_RESPONSE_SIZE;
	int length = snprintf(message, ANSWER_SIZE - TRACKER_RESPONSE_SIZE, "%s\n", why);

	tracker_response_encode(answer, &(struct tracker_response){.status = 1, .length = (uint32_t)length});
	return TRACKER_RESPONSE_SIZE + (size_t)length;
}

/* What is put into an answer. */
struct pick {
	const struct subscription *subscription[ANSWER_PEERS_MAX];
	size_t count;
};

/* Whether the peer is not picked yet, and fewer than `most` of its source are. */
static bool can_pick(const struct pick *pick, const struct subscription *s, size_t most)
{
	size_t of_source = 0;

	for (size_t i = 0; i < pick->count; i++) {
		if (same_address(pick->subscription[i]->peer, s->peer))
			return false;
		of_source += pick->subscription[i]->source == s->source;
	}
	return of_source < most;
}

/* Picks from the count candidates in their order until `until` are picked, and
 * not more than `most` of any source. */
static void pick_some(struct pick *pick, struct subscription *const candidates[], size_t count,
		      size_t most, size_t until)
{
	for (size_t i = 0; i < count && pick->count < until; i++)
		if (can_pick(pick, candidates[i], most))
			pick->subscription[pick->count++] = candidates[i];
}

static void shuffle(struct subscription *candidates[], size_t count)
{
	for (size_t i = 0; i + 1 < count; i++) {	/* Fisher and Yates */
		size_t j = i + (size_t)random() % (count - i);
		struct subscription *moved = candidates[i];
		candidates[i] = candidates[j];
		candidates[j] = moved;
	}
}

/* Peers are named in this order: the good ones before the others, and among each
 * those that have subscribed lately before those that may have ended. */
#define RANKS 4
static unsigned rank_of(const struct subscription *s)
{
	return (is_good(s->peer.ip) ? 0u : 2u) + (clock_ms() - s->seen_ms > FRESH_MS ? 1u : 0u);
}

/* Picks up to ANSWER_PEERS_MAX peers other than the requester, by rank, and by
 * chance within a rank. One half goes to the sources in turn, so that one that
 * names a crowd can't hide the others; the rest to any, so that neither a crowd
 * behind one address is hidden by a few with their own. */
static void pick_peers(struct pick *pick, const uint8_t hash[SHA256_HASH_SIZE], struct address requester)
{
	static struct subscription *ranked[PEERS_MAX];
	size_t found_count = find_subscriptions(hash);

	shuffle(found, found_count);
	pick->count = 0;
	for (unsigned rank = 0; rank < RANKS; rank++) {
		size_t count = 0;
		for (size_t i = 0; i < found_count; i++)
			if (!has_expired(found[i]) && !same_address(found[i]->peer, requester) &&
			    rank_of(found[i]) == rank)
				ranked[count++] = found[i];
		for (size_t most = 1; most <= ANSWER_PEERS_MAX / 2; most++)
			pick_some(pick, ranked, count, most, ANSWER_PEERS_MAX / 2);
		pick_some(pick, ranked, count, ANSWER_PEERS_MAX, ANSWER_PEERS_MAX);
	}
}

static size_t answer_list(uint8_t answer[ANSWER_SIZE], const struct tracker_request *request)
{
	uint8_t *p = answer + TRACKER_RESPONSE_SIZE;
	struct pick pick;

	pick_peers(&pick, request->cascade_hash, request->self);
	for (size_t i = 0; i < pick.count; i++, p += TRACKER_ENTRY_SIZE) {
		const struct subscription *s = pick.subscription[i];
		int64_t age_s = (clock_ms() - s->seen_ms) / 1000;
		tracker_entry_encode(p, &(struct tracker_entry){
			s->peer, (uint32_t)(time(NULL) - age_s), is_good(s->peer.ip)});
	}
	tracker_response_encode(answer, &(struct tracker_response){
		.status = 0, .length = (uint32_t)(pick.count * TRACKER_ENTRY_SIZE)});
	return TRACKER_RESPONSE_SIZE + pick.count * TRACKER_ENTRY_SIZE;
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

/* Writes the answer to a whole request; returns its size in bytes. */
static size_t answer_request(uint8_t answer[ANSWER_SIZE], const struct tracker_request *request,
			     struct address source)
{
	const char *why = NULL;

	if (!is_tracked(request->cascade_hash))
		why = "this tracker doesn't track that file";
	else if (request->command == TRACKER_SUBSCRIBE)
		why = refuse_subscription(request->self, source);
	if (why != NULL)
		return answer_error(answer, why);
	if (request->command == TRACKER_SUBSCRIBE)
		subscribe(request, source.ip);
	return answer_list(answer, request);
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
	(void)shutdown(client->fd, SHUT_WR);	/* it fails where the client has gone: read will tell */
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

/* The system lacks something for now. Returns how long to wait. */
static int warn_of_shortage(const char *what)
{
	static int64_t said_ms;

	if (may_say(&said_ms))
		log_warn("%s", what);
	return PAUSE_MS;
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
			return warn_of_shortage("can't accept a connection");
		}
		if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0) {
			int pause_ms = warn_of_shortage("can't take a connection");
			close(fd);
			return pause_ms;
		}
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
static volatile sig_atomic_t ending, status_wanted;
static int wake[2];

static void on_signal(int sig)
{
	int saved = errno;

	if (sig == SIGUSR1)
		status_wanted = 1;
	else
		ending = 1;
	(void)!write(wake[1], "", 1);	/* a full pipe wakes it as well */
	errno = saved;
}

/* The pipe is emptied before the flag is read: a signal in between wakes poll again. */
static void heed_signals(void)
{
	char bytes[64];

	while (read(wake[0], bytes, sizeof bytes) > 0)
		;
	if (status_wanted) {
		status_wanted = 0;
		print_status();
	}
}

/* Waits until something comes, until next_ms at the latest. */
static void wait_for_any(struct pollfd polled[], nfds_t count, int64_t next_ms)
{
	if (poll(polled, count, clock_poll_timeout(next_ms)) >= 0 || errno == EINTR)
		return;
	const struct timespec pause = {.tv_nsec = warn_of_shortage("can't wait for clients") * 1000000L};
	nanosleep(&pause, NULL);
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
		wait_for_any(polled, client_count + 2, next_ms);
		if (polled[client_count].revents != 0)
			heed_signals();
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
		args_misuse("not an IPv4 address: \"%s\"", text);
}

/* Reads an operand: a hash, or a metafile that has it. */
static void add_operand(const char *text)
{
	uint8_t hash[SHA256_HASH_SIZE];
	struct metafile m;
	const char *why;

	if (!args_hash(text, hash)) {
		char *data_path = metafile_data_path(text);
		if (data_path == NULL)
			fatalx("%s: neither a hash of %d digits nor a metafile (NAME" METAFILE_SUFFIX ")",
			       text, 2 * SHA256_HASH_SIZE);
		free(data_path);
		if (metafile_open(&m, text, &why) < 0)
			fatalx("%s: %s", text, why);
		memcpy(hash, m.cascade_hash, sizeof hash);
		metafile_close(&m);
	}
	tracked = Realloc(tracked, (tracked_count + 1) * sizeof *tracked);
	memcpy(tracked[tracked_count++], hash, sizeof hash);
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
				args_misuse("not an IPv4 address: \"%s\"", optarg);
			break;
		case 'p':
			if (!args_port(optarg, 0, &listen_on.port))
				args_misuse("not a port: \"%s\"", optarg);
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
	for (; optind < argc; optind++)
		add_operand(argv[optind]);
	if (tracked_count > 0)
		qsort(tracked, tracked_count, sizeof *tracked, compare_hashes);
	return listen_on;
}

static void set_up_signals(void)
{
	struct sigaction hangup;

	if (pipe(wake) < 0 || fcntl(wake[0], F_SETFL, O_NONBLOCK) < 0 || fcntl(wake[1], F_SETFL, O_NONBLOCK) < 0)
		fatal("can't make a pipe");
	Signal(SIGINT, on_signal);
	Signal(SIGTERM, on_signal);
	Signal(SIGUSR1, on_signal);
	if (sigaction(SIGHUP, NULL, &hangup) < 0 || hangup.sa_handler != SIG_IGN)	/* nohup(1) */
		Signal(SIGHUP, on_signal);
	Signal(SIGPIPE, SIG_IGN);	/* a client that hangs up is an error of write */
}

int main(int argc, char **argv)
{
	args_program("tracker", usage_text, help_text);
	srandom((unsigned)time(NULL) ^ (unsigned)getpid());
	bucket_secret = (uint32_t)random();
	struct address listen_at = parse_arguments(argc, argv);
	set_up_signals();
	log_never_wait();
	serve(address_listen(&listen_at, false));
	return 0;
}
