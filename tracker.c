/* tracker.c - the tracker: tells peers which other peers are active. It is one process
 * with one loop around poll, because all clients share its state and all messages are
 * tiny. The table of subscriptions is in track/. */
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
#include "base/confine.h"
#include "base/exits.h"
#include "base/format.h"
#include "base/io.h"
#include "base/log.h"
#include "base/process.h"
#include "base/retry.h"
#include "base/wait.h"
#include "csapp.h"
#include "file/metafile.h"
#include "net/listen.h"
#include "net/tracker_client.h"
#include "net/wire.h"
#include "track/policy.h"
#include "track/subscriptions.h"

#define DEFAULT_PORT 8888
#define CLIENTS_MAX 512		/* connections at a time */
#define ACCEPTS_AT_ONCE 64	/* before connected clients are read from */
#define CLIENT_DEADLINE_MS 10000	/* for a request to arrive and its answer to leave */
#define PAUSE_MS 100		/* after accept or poll failed: the system is short of something */

static const char usage_text[] =
	"usage: tracker [-a ADDR] [-p PORT] [-g GOOD_IP]... [--ban-private]\n"
	"               [FILE.cascade | HASH]...\n"
	"       tracker --list HOST:PORT {FILE.cascade | HASH}...\n";

static const char help_text[] =
	"Tells peers which other peers are active: for the files named, or for any file.\n"
	"\n"
	"  -a, --address ADDR  listen on this IPv4 address (default 0.0.0.0)\n"
	"  -p, --port PORT     listen on this port, 0 for any that is free (default 8888)\n"
	"  -g, --good GOOD_IP  vouch for peers at this address\n"
	"      --ban-private   refuse peers with a private address\n"
	"      --list HOST:PORT  print the peers that the tracker there names, and exit\n"
	"      --timestamps    begin each message with the time\n"
	"  -q, --quiet         print only errors and \"listening on\"\n"
	"  -v, --verbose       print every request\n"
	"  -h, --help          print this and exit\n"
	"  -V, --version       print the version and exit\n";

/* ---- answering ----------------------------------------------------------- */

#define ANSWER_SIZE (TRACKER_RESPONSE_SIZE + SUBSCRIPTIONS_NAMED_MAX * TRACKER_ENTRY_SIZE)

/* Writes an answer with an error message, which ends with a newline: some peers read a
 * line. Returns its size in bytes. */
static size_t write_error(uint8_t answer[ANSWER_SIZE], const char *why)
{
	char *message = (char *)answer + TRACKER_RESPONSE_SIZE;
	int length = snprintf(message, ANSWER_SIZE - TRACKER_RESPONSE_SIZE, "%s\n", why);

	tracker_response_encode(answer, &(struct tracker_response){.status = 1, .length = (uint32_t)length});
	return TRACKER_RESPONSE_SIZE + (size_t)length;
}

static size_t answer_list(uint8_t answer[ANSWER_SIZE], const struct tracker_request *request)
{
	struct tracker_entry entries[SUBSCRIPTIONS_NAMED_MAX];
	size_t named = subscriptions_pick(request->cascade_hash, request->self, entries);
	uint32_t length = (uint32_t)(named * TRACKER_ENTRY_SIZE);

	tracker_response_encode(answer, &(struct tracker_response){.status = 0, .length = length});
	for (size_t i = 0; i < named; i++)
		tracker_entry_encode(answer + TRACKER_RESPONSE_SIZE + i * TRACKER_ENTRY_SIZE, &entries[i]);
	return TRACKER_RESPONSE_SIZE + length;
}

/* Writes the answer to a complete request. Returns its size in bytes. */
static size_t write_answer(uint8_t answer[ANSWER_SIZE], const struct tracker_request *request,
			     struct address source)
{
	const char *why = policy_refuses(request, source);

	if (why != NULL)
		return write_error(answer, why);
	if (request->command == TRACKER_SUBSCRIBE)
		subscriptions_add(request->cascade_hash, request->self, source.ip);
	return answer_list(answer, request);
}

/* ---- clients ------------------------------------------------------------- */

/* A client sends one request and gets one answer. Then the connection is closed for
 * writing, and what the client still sends is dropped until it closes its side: closing
 * at once, with unread bytes, would reset the connection, and the client could lose the
 * answer (RFC 1122, 4.2.2.13). */
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
		size = write_error(answer, why);
	else
		size = write_answer(answer, &request, client->source);
	log_debug("%s: %s", address_text(client->source, text),
		  why != NULL ? why : request.command == TRACKER_LIST ? "lists" : "subscribes");
	/* One write, because some peers read the first bytes with one recv. The answer
	 * fits into the buffer of a new socket; if it can't be sent, the client has gone. */
	if (send(client->fd, answer, size, MSG_NOSIGNAL) != (ssize_t)size)
		client->deadline_ms = 0;
	(void)shutdown(client->fd, SHUT_WR);	/* fails if the client has gone; read will tell */
	client->answered = true;
}

/* Reads what has come. Returns false if the client has gone. */
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

/* The system is short of something. Returns how long to wait. */
static int warn_of_shortage(const char *what)
{
	static int64_t said_ms;

	if (log_may_say(&said_ms))
		log_warn("%s", what);
	return PAUSE_MS;
}

/* Accepts waiting clients, but not so many at once that earlier ones are dropped before
 * they are read from. Returns for how many ms to leave the others waiting. */
static int accept_connections(int listen_fd)
{
	for (int i = 0; i < ACCEPTS_AT_ONCE; i++) {
		struct address source;
		int fd = listen_accept(listen_fd, &source);
		if (fd < 0)
			return errno == EAGAIN ? 0 : warn_of_shortage("can't accept a connection");
		if (client_count == CLIENTS_MAX)
			drop_client(nearest_deadline());
		clients[client_count++] = (struct client){
			.fd = fd,
			.source = source,
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

/* Set by a signal. A byte in the pipe then ends the next poll, so that no signal is
 * missed. */
static volatile sig_atomic_t ending, status_wanted;
static int wake[2];

static void on_signal(int sig)
{
	int saved = errno;

	if (sig == SIGUSR1)
		status_wanted = 1;
	else
		ending = 1;
	(void)!write(wake[1], "", 1);	/* if the pipe is full, it ends poll as well */
	errno = saved;
}

static void report_subscriptions(void)
{
	size_t peers, files;

	subscriptions_count(&peers, &files);
	log_status("%zu peer%s subscribed, for %zu file%s", peers, FORMAT_S(peers), files, FORMAT_S(files));
}

/* Empties the pipe before it reads the flag: a signal in between ends the next poll. */
static void take_signals(void)
{
	wait_drain(wake[0]);
	if (status_wanted) {
		status_wanted = 0;
		report_subscriptions();
	}
}

/* Waits until a descriptor is ready, until next_ms at the latest. */
static void wait_for_clients(struct pollfd polled[], nfds_t count, int64_t next_ms)
{
	if (poll(polled, count, clock_poll_timeout(next_ms)) >= 0 || errno == EINTR)
		return;
	wait_ms((unsigned)warn_of_shortage("can't wait for clients"));
}

static void answer_clients(int listen_fd)
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
		wait_for_clients(polled, client_count + 2, next_ms);
		if (polled[client_count].revents != 0)
			take_signals();
		bool incoming = polled[client_count + 1].revents != 0;
		/* Backwards, because drop_client moves the last client into the gap. */
		for (size_t i = client_count; i-- > 0; )
			if (polled[i].revents != 0 && !read_client(&clients[i]))
				drop_client(i);
		drop_late_clients();
		if (incoming)
			accept_again_ms = clock_ms() + accept_connections(listen_fd);
	}
}

/* ---- start-up ------------------------------------------------------------ */

/* Reads an operand: a cascade hash, or the path of a metafile. */
static void read_operand(const char *text, uint8_t hash[SHA256_HASH_SIZE])
{
	struct metafile m;
	const char *why;

	if (args_hash(text, hash))
		return;
	if (!metafile_is_named(text))
		fatalx("%s: neither a hash of %d digits nor a metafile (NAME" METAFILE_SUFFIX ")",
		       text, 2 * SHA256_HASH_SIZE);
	if (metafile_open(&m, text, &why) < 0) {
		log_warnx("%s: %s", text, why);
		exit(m.error == 0 ? EXIT_METAFILE : EXIT_UNABLE);
	}
	memcpy(hash, m.cascade_hash, SHA256_HASH_SIZE);
	metafile_close(&m);
}

static void add_operand(const char *text)
{
	uint8_t hash[SHA256_HASH_SIZE];

	read_operand(text, hash);
	policy_track_file(hash);
}

/* ---- asking another tracker --------------------------------------------------- */

#define LIST_MS 10000	/* for an answer */

static void print_entry(const struct tracker_entry *entry)
{
	char text[ADDRESS_TEXT_SIZE];
	long long seconds = (long long)time(NULL) - (long long)entry->last_seen;

	printf("%s\tsubscribed %lld s ago%s\n", address_text(entry->address, text), seconds < 0 ? 0 : seconds,
	       entry->good ? ", good" : "");
}

/* --list: prints the peers that the tracker names for each operand. */
static _Noreturn void list_and_exit(char *tracker, char **operands, int count)
{
	static struct tracker_entry entries[TRACKER_ENTRIES_MAX];
	char why[TRACKER_WHY_SIZE], *port = strrchr(tracker, ':');
	uint16_t number;

	if (port == NULL || port == tracker || !args_port(port + 1, 1, &number))
		args_misuse("not HOST:PORT: \"%s\"", tracker);
	*port++ = '\0';
	if (!args_host(tracker))
		args_misuse("not an IPv4 address or a name: \"%s\"", tracker);
	if (count == 0)
		args_misuse("--list needs a FILE.cascade or a HASH");
	for (int i = 0; i < count; i++) {
		struct tracker_request request = {.command = TRACKER_LIST};
		read_operand(operands[i], request.cascade_hash);
		int named = tracker_exchange(tracker, port, request, LIST_MS, entries, why);
		if (named < 0)
			fatalx("tracker %s:%s: %s", tracker, port, why);
		for (int n = 0; n < named; n++)
			print_entry(&entries[n]);
	}
	if (fflush(stdout) != 0)
		fatal("can't write to standard output");
	exit(EXIT_DONE);
}

static uint32_t parse_ip(const char *text)
{
	uint32_t ip;

	if (!args_ip(text, &ip))
		args_misuse("not an IPv4 address: \"%s\"", text);
	return ip;
}

static struct address parse_arguments(int argc, char **argv)
{
	enum { BAN_PRIVATE = 256, LIST, TIMESTAMPS };
	static const struct option options[] = {
		{"address", required_argument, NULL, 'a'},
		{"port", required_argument, NULL, 'p'},
		{"good", required_argument, NULL, 'g'},
		{"ban-private", no_argument, NULL, BAN_PRIVATE},
		{"list", required_argument, NULL, LIST},
		{"timestamps", no_argument, NULL, TIMESTAMPS},
		{"quiet", no_argument, NULL, 'q'},
		{"verbose", no_argument, NULL, 'v'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{0},
	};
	struct address self = {.ip = INADDR_ANY, .port = DEFAULT_PORT};
	char *tracker = NULL;
	int option;

	while ((option = getopt_long(argc, argv, "a:p:g:qvhV", options, NULL)) != -1)
		switch (option) {
		case 'a': self.ip = parse_ip(optarg); break;
		case 'p':
			if (!args_port(optarg, 0, &self.port))
				args_misuse("not a port: \"%s\"", optarg);
			break;
		case 'g': policy_vouch_for(parse_ip(optarg)); break;
		case BAN_PRIVATE: policy_ban_private(); break;
		case LIST: tracker = optarg; break;
		case TIMESTAMPS: log_timestamps(); break;
		case 'q': log_set_level(LOG_QUIET); break;
		case 'v': log_set_level(LOG_VERBOSE); break;
		case 'h': args_help();
		case 'V': args_version();
		default: args_misuse(NULL);
		}
	if (tracker != NULL)
		list_and_exit(tracker, argv + optind, argc - optind);
	for (; optind < argc; optind++)
		add_operand(argv[optind]);
	return self;
}

static void set_up_signals(void)
{
	if (pipe(wake) < 0 || fcntl(wake[0], F_SETFL, O_NONBLOCK) < 0 ||
	    fcntl(wake[1], F_SETFL, O_NONBLOCK) < 0)
		fatal("can't make a pipe");
	process_on_end(on_signal);
	Signal(SIGUSR1, on_signal);
	Signal(SIGPIPE, SIG_IGN);	/* a client that hangs up makes write fail */
}

/* A number that nobody else can know, as far as the system has one. */
static uint32_t make_secret(void)
{
	uint32_t secret = (uint32_t)time(NULL) ^ (uint32_t)getpid() << 16;
	int fd = retry_open("/dev/urandom", O_RDONLY | O_CLOEXEC, 0);

	if (fd >= 0) {
		(void)!io_read(fd, &secret, sizeof secret);	/* if it fails, time and process must do */
		close(fd);
	}
	return secret;
}

int main(int argc, char **argv)
{
	Signal(SIGUSR1, SIG_IGN);	/* until there is something to report */
	args_program("tracker", usage_text, help_text);
	struct address self = parse_arguments(argc, argv);
	set_up_signals();
	log_never_wait();
	srandom(make_secret());
	subscriptions_begin(make_secret());
	int listen_fd = listen_open(&self, false);
	if (confine_self(confine_prepare(NULL, 0)) < 0)
		fatal("this process can't be confined");
	answer_clients(listen_fd);
	return 0;
}
