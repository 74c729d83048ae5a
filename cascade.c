/* cascade.c - the peer.
 *
 *   cascade ── serving parent: accept ─┬─ child: answers one client, exits
 *      │                               ├─ child ...
 *      │                               └─ subscriber: tells the tracker, exits
 *      └─ fetcher ─┬─ checkers: hash what the data file holds at the start
 *                  ├─ checkers, up to four: hash what arrives
 *                  └─ tracker query: asks for peers, exits
 *
 * Who forks a process also waits for it, and no process outlives the one that
 * forked it. With --client-only there is no serving parent: this process is
 * the fetcher. This file reads the arguments, opens what they name, and starts
 * the two; they are in peer_serve.c and fetch.c. */
#define _DEFAULT_SOURCE 1	/* setgroups */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/args.h"
#include "file/scan.h"
#include "csapp.h"
#include "file/datafile.h"
#include "fetch/fetch.h"
#include "fetch/progress.h"
#include "base/log.h"
#include "peer_serve.h"
#include "base/process.h"
#include "net/wire.h"

static const char usage_text[] =
	"usage: cascade [options] FILE.cascade[:FILE.cascade...] TRACKER_IP TRACKER_PORT MY_IP MY_PORT\n"
	"       cascade [options] FILE.cascade[:FILE.cascade...] TRACKER:PORT MY_IP:PORT\n";

static const char help_text[] =
	"Fetches what the metafiles describe, and serves it. TRACKER may be - for none.\n"
	"\n"
	"  -c, --client-only        don't serve; exit when everything is complete\n"
	"  -o, --output OUT[:OUT...]  data files, one for each metafile, in order\n"
	"  -f, --force              use a local file that would be refused\n"
	"  -p, --peer HOST:PORT     fetch from this peer too; may be given several times\n"
	"  -m, --max-clients N      serve so many clients at a time (default 256)\n"
	"      --max-upload RATE    serve so many bytes a second at most; K, M, G as in 10M\n"
	"      --verify-whole       hash a complete file once more, as a whole\n"
	"      --verify-on-send     hash each chunk again before it is sent\n"
	"  -u, --user NAME          become this user once files and port are open\n"
	"  -j, --jobs N             check chunks with N processes (default: one a CPU)\n"
	"      --order=ascending    fetch in the file's order, from its first chunk on\n"
	"      --timeout SECONDS    how long a peer may be silent (default 10)\n"
	"      --give-up SECONDS    exit when nothing has come for so long (default: never),\n"
	"                           even if this peer serves\n"
	"  -q, --quiet              say nothing but errors and \"listening on\"\n"
	"  -v, --verbose            tell of each peer's fate\n"
	"  -h, --help               print this and exit\n"
	"  -V, --version            print the version and exit\n"
	"\n"
	"Exit status: 0, all files are complete; 1, they are not; 2, wrong usage. SIGTERM\n"
	"and SIGINT end a peer that serves, SIGUSR1 makes it say what it does.\n";

#define FILES_MAX 1024
#define PEERS_MAX 64
#define SILENCE_S 10	/* what --timeout is measured by */

struct settings {
	char *metafiles, *outputs;	/* joined by ':' */
	const char *tracker_host, *tracker_port;
	struct address self;
	struct address peers[PEERS_MAX];
	unsigned max_clients;
	uint64_t max_upload;
	const struct passwd *user;	/* to become; NULL: nobody else */
	bool client_only, force, verify_on_send;
	struct fetch_options fetch;
};

/* ---- command line --------------------------------------------------------- */

/* Cuts "HOST:PORT" in two, in place. */
static bool cut_port(char *text, char **port)
{
	char *colon = strrchr(text, ':');

	if (colon == NULL || colon == text)
		return false;
	*colon = '\0';
	*port = colon + 1;
	return true;
}

static void check_host(const char *text)
{
	if (!args_host(text))
		args_misuse("not an IPv4 address or a name: \"%s\"", text);
}

static void parse_peer(struct settings *s, char *text)
{
	struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *list;
	struct address *peer = &s->peers[s->fetch.peer_count];
	char *port, *host = strdup(text);

	if (s->fetch.peer_count == PEERS_MAX)
		args_misuse("more than %d peers: \"%s\"", PEERS_MAX, text);
	if (host == NULL)
		fatal("memory");
	if (!cut_port(host, &port) || !args_port(port, 1, &peer->port))
		args_misuse("not HOST:PORT: \"%s\"", text);
	check_host(host);
	int error = getaddrinfo(host, NULL, &hints, &list);
	if (error != 0)
		fatalx("%s: %s", text, error == EAI_SYSTEM ? strerror(errno) : gai_strerror(error));
	peer->ip = address_from_sockaddr((const struct sockaddr_in *)(const void *)list->ai_addr).ip;
	freeaddrinfo(list);
	free(host);
	s->fetch.peer_count++;
}

static unsigned parse_number(const char *what, const char *text, unsigned max)
{
	uint64_t n;

	if (!args_number(text, 1, max, &n))
		args_misuse("not a number of %s from 1 to %u: \"%s\"", what, max, text);
	return (unsigned)n;
}

static unsigned cpu_count(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	return n < 1 ? 1 : n > SCAN_WORKERS_MAX ? SCAN_WORKERS_MAX : (unsigned)n;
}

static void parse_options(struct settings *s, int argc, char **argv)
{
	enum { ORDER = 256, TIMEOUT, GIVE_UP, MAX_UPLOAD, VERIFY_ON_SEND, VERIFY_WHOLE };
	static const struct option options[] = {
		{"client-only", no_argument, NULL, 'c'},
		{"output", required_argument, NULL, 'o'},
		{"force", no_argument, NULL, 'f'},
		{"peer", required_argument, NULL, 'p'},
		{"max-clients", required_argument, NULL, 'm'},
		{"max-upload", required_argument, NULL, MAX_UPLOAD},
		{"verify-whole", no_argument, NULL, VERIFY_WHOLE},
		{"verify-on-send", no_argument, NULL, VERIFY_ON_SEND},
		{"user", required_argument, NULL, 'u'},
		{"jobs", required_argument, NULL, 'j'},
		{"order", required_argument, NULL, ORDER},
		{"timeout", required_argument, NULL, TIMEOUT},
		{"give-up", required_argument, NULL, GIVE_UP},
		{"quiet", no_argument, NULL, 'q'},
		{"verbose", no_argument, NULL, 'v'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{0},
	};
	int option;

	while ((option = getopt_long(argc, argv, "co:fp:m:u:j:qvhV", options, NULL)) != -1)
		switch (option) {
		case 'c': s->client_only = true; break;
		case 'o': s->outputs = optarg; break;
		case 'f': s->force = true; break;
		case 'p': parse_peer(s, optarg); break;
		case 'm': s->max_clients = parse_number("clients", optarg, 65536); break;
		case MAX_UPLOAD:
			if (!args_size(optarg, 1024, UINT64_C(1) << 40, &s->max_upload))
				args_misuse("not a rate from 1K to 1024G: \"%s\"", optarg);
			break;
		case VERIFY_WHOLE: s->fetch.verify_whole = true; break;
		case VERIFY_ON_SEND: s->verify_on_send = true; break;
		case 'u':
			s->user = getpwnam(optarg);
			if (s->user == NULL)
				fatalx("there is no user \"%s\"", optarg);
			break;
		case 'j': s->fetch.check_workers = parse_number("processes", optarg, SCAN_WORKERS_MAX); break;
		case ORDER:
			if (strcmp(optarg, "ascending") != 0)
				args_misuse("unknown order: \"%s\"", optarg);
			s->fetch.ascending = true;
			break;
		case TIMEOUT:
			s->fetch.time_scale = (double)parse_number("seconds", optarg, 86400) / SILENCE_S;
			break;
		case GIVE_UP: s->fetch.give_up_s = parse_number("seconds", optarg, 1u << 30); break;
		case 'q': log_set_level(LOG_QUIET); break;
		case 'v': log_set_level(LOG_VERBOSE); break;
		case 'h': args_help();
		case 'V': args_version();
		default: args_misuse(NULL);
		}
}

/* The operands, in either form: five, or three with ports behind colons. "-"
 * takes the tracker's place where there is none. */
static void parse_operands(struct settings *s, int count, char **operands)
{
	char *ip, *port, *tracker, *tracker_port = NULL;
	uint16_t number;

	if (count != 3 && count != 5 && !(count == 4 && strcmp(operands[1], "-") == 0))
		args_misuse("%s", count < 3 ? "too few arguments" : "wrong number of arguments");
	s->metafiles = operands[0];
	tracker = operands[1];
	if (strcmp(tracker, "-") != 0) {
		if (count == 5)
			tracker_port = operands[2];
		else if (!cut_port(tracker, &tracker_port))
			args_misuse("not TRACKER:PORT: \"%s\"", tracker);
		check_host(tracker);
		if (!args_port(tracker_port, 1, &number))
			args_misuse("not a port: \"%s\"", tracker_port);
		s->tracker_host = tracker;
		s->tracker_port = tracker_port;
	}
	if (count == 3) {
		ip = operands[2];
		if (!cut_port(ip, &port))
			args_misuse("not MY_IP:PORT: \"%s\"", ip);
	} else {
		ip = operands[count - 2];
		port = operands[count - 1];
	}
	if (!args_ip(ip, &s->self.ip))
		args_misuse("not an IPv4 address: \"%s\"", ip);
	if (!args_port(port, 0, &s->self.port))
		args_misuse("not a port: \"%s\"", port);
}

/* ---- start-up ------------------------------------------------------------- */

static size_t count_parts(const char *joined)
{
	size_t count = 1;

	for (; *joined != '\0'; joined++)
		count += *joined == ':';
	return count;
}

/* Finds out whether the data file may be overwritten, which may take a while. */
static int claim(struct datafile *file, const struct settings *s)
{
	progress_begin("checking", file, 0, NULL);
	int result = datafile_claim(file, s->force, s->fetch.check_workers, progress_checked);
	progress_end();
	return result;
}

/* Opens all files; any that can't be used ends the program, before the network
 * is touched. */
static struct datafile *open_files(struct settings *s, size_t *count)
{
	char *metafiles = s->metafiles, *outputs = s->outputs;
	bool failed = false;

	*count = count_parts(metafiles);
	if (outputs != NULL && count_parts(outputs) != *count)
		args_misuse("--output needs one data file for each metafile");
	if (*count > FILES_MAX)
		args_misuse("more than %d metafiles", FILES_MAX);
	struct datafile *files = Calloc(*count, sizeof *files);
	for (size_t i = 0; i < *count; i++) {
		char *metafile = metafiles, *output = outputs;
		metafiles += strcspn(metafiles, ":");
		if (*metafiles == ':')
			*metafiles++ = '\0';
		if (outputs != NULL) {
			outputs += strcspn(outputs, ":");
			if (*outputs == ':')
				*outputs++ = '\0';
		}
		failed |= datafile_open(&files[i], metafile, output) < 0;
	}
	if (failed || datafile_overlap(files, *count))
		exit(EXIT_FAILURE);
	for (size_t i = 0; i < *count; i++)
		failed |= claim(&files[i], s) < 0;
	if (failed)
		exit(EXIT_FAILURE);
	return files;
}

/* Gives up root's rights for those of another user. The files are open, but
 * children open what they serve anew: that must go on working. */
static void become_user(const struct passwd *user, const struct datafile *files, size_t count)
{
	const char *name = user->pw_name;

	if (setgroups(1, &user->pw_gid) < 0 || setgid(user->pw_gid) < 0 || setuid(user->pw_uid) < 0)
		fatal("can't become user %s", name);
	for (size_t i = 0; i < count; i++)
		if (access(files[i].path, R_OK) < 0)
			fatal("%s: %s can't read it", files[i].path, name);
	log_info("running as %s from here on", name);
}

/* A download that is broken off was not completed. What was forked ends with
 * this process. */
static void on_end(int sig)
{
	(void)sig;
	progress_erase();
	_exit(EXIT_FAILURE);
}

static int fetch_only(struct settings *s, struct datafile *files, size_t count)
{
	struct sigaction hangup;

	if (s->user != NULL)
		become_user(s->user, files, count);
	Signal(SIGINT, on_end);
	Signal(SIGTERM, on_end);
	sigaction(SIGHUP, NULL, &hangup);
	if (hangup.sa_handler != SIG_IGN)	/* nohup(1) */
		Signal(SIGHUP, on_end);
	Signal(SIGUSR1, progress_on_request);
	s->fetch.self = s->self;
	s->fetch.news = -1;
	return fetch_files(files, count, &s->fetch) == FETCH_COMPLETE ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* The fetcher below a serving parent. Returns its exit status. */
static int run_fetcher(struct datafile *files, size_t count, const struct fetch_options *options)
{
	switch (fetch_files(files, count, options)) {
	case FETCH_COMPLETE:
		return EXIT_SUCCESS;
	case FETCH_GAVE_UP:
		return FETCHER_GAVE_UP;
	default:
		return EXIT_FAILURE;
	}
}

static int fetch_and_serve(struct settings *s, struct datafile *files, size_t count)
{
	struct serve_options serving = {.files = files, .count = count, .max_clients = s->max_clients,
		.max_upload = s->max_upload, .verify = s->verify_on_send,
		.tracker_host = s->tracker_host, .tracker_port = s->tracker_port};
	int news[2];

	serve_block_signals();
	serving.listen_fd = address_listen(&s->self, true);
	if (s->user != NULL)
		become_user(s->user, files, count);
	/* Neither side may ever wait for the other. */
	if (socketpair(AF_UNIX, SOCK_DGRAM, 0, news) < 0 || fcntl(news[0], F_SETFL, O_NONBLOCK) < 0 ||
	    fcntl(news[1], F_SETFL, O_NONBLOCK) < 0)
		fatal("can't make a pair of sockets");
	serving.self = s->fetch.self = s->self;
	s->fetch.news = news[1];
	serving.news = news[0];
	serving.fetcher = process_fork("fetcher");
	if (serving.fetcher < 0)
		fatal("can't fork the fetcher");
	if (serving.fetcher == 0) {
		close(serving.listen_fd);
		close(news[0]);
		exit(run_fetcher(files, count, &s->fetch));
	}
	close(news[1]);
	return serve(&serving) ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* Each file that is fetched takes two descriptors: as many as may be had. */
static void allow_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);	/* if not, what opens fails, and says so */
	}
}

int main(int argc, char **argv)
{
	struct settings s = {
		.max_clients = MAX_CLIENTS_DEFAULT,
		.fetch = {.check_workers = cpu_count(), .time_scale = 1},
	};
	size_t count;

	Signal(SIGUSR1, SIG_IGN);	/* until there is something to report */
	args_program("cascade", usage_text, help_text);
	parse_options(&s, argc, argv);
	parse_operands(&s, argc - optind, argv + optind);
	s.fetch.peers = s.peers;
	s.fetch.tracker_host = s.tracker_host;
	s.fetch.tracker_port = s.tracker_port;
	if (s.tracker_host == NULL && s.fetch.peer_count == 0 && s.client_only)
		args_misuse("without a tracker, --client-only needs a --peer");
	Signal(SIGCHLD, SIG_DFL);	/* ignored, it would hide how children end */
	Signal(SIGPIPE, SIG_IGN);	/* whoever hangs up is an error of write, */
	Signal(SIGXFSZ, SIG_IGN);	/* and so is a file that may not grow */
	allow_descriptors();
	struct datafile *files = open_files(&s, &count);
	return s.client_only ? fetch_only(&s, files, count) : fetch_and_serve(&s, files, count);
}
