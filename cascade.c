/* cascade.c - the peer.
 *
 *   cascade ── serving parent: accept ─┬─ child: answers one client, exits
 *      │                               ├─ child ...
 *      │                               └─ subscriber: tells the tracker, exits
 *      └─ fetcher ─┬─ checkers: hash what the data file holds at the start
 *                  ├─ checkers, up to four: hash what arrives
 *                  ├─ writer, with -o -: writes the file to standard output
 *                  └─ tracker queries, up to sixteen: ask for peers, exit
 *
 * This file reads the command line, opens the files, listens, forks the fetcher
 * (fetch/fetch.c) and becomes the serving parent (peer_serve.c). With --client-only
 * there is no serving parent: this process is the fetcher. Each process reaps its
 * children while it runs; when it ends, in whatever way, they are killed. The signals that
 * end a program are for the first process alone: the others ignore or block them. */
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
#include "base/exits.h"
#include "base/format.h"
#include "base/log.h"
#include "base/process.h"
#include "csapp.h"
#include "fetch/fetch.h"
#include "fetch/outlet.h"
#include "fetch/progress.h"
#include "file/datafile.h"
#include "file/fill.h"
#include "file/scan.h"
#include "file/status.h"
#include "net/listen.h"
#include "net/news.h"
#include "peer_serve.h"

static const char usage_text[] =
	"usage: cascade [options] FILE.cascade[:FILE.cascade...]\n"
	"               TRACKER_IP TRACKER_PORT MY_IP MY_PORT\n"
	"       cascade [options] FILE.cascade[:FILE.cascade...] TRACKER:PORT MY_IP:PORT\n";

static const char help_text[] =
	"Fetches the files that the metafiles describe, and serves them. TRACKER may be -\n"
	"for none.\n"
	"\n"
	"  -c, --client-only        don't serve; exit when everything is complete\n"
	"  -o, --output OUT[:OUT...]  data files, one for each metafile, in order; with\n"
	"                           -c and one metafile, - for standard output\n"
	"  -f, --force              use a local file that would be refused\n"
	"      --from OLD           copy what matches at the same place in OLD, which is\n"
	"                           never changed, and fetch the rest; may be repeated\n"
	"      --peer HOST:PORT     fetch from this peer too; may be given several times\n"
	"  -m, --max-clients N      serve at most N clients at a time (default 256)\n"
	"      --max-upload RATE    send at most RATE bytes a second; K, M, G as in 10M\n"
	"      --max-download RATE  fetch at most RATE bytes a second\n"
	"      --verify-whole       hash a complete file once more, as a whole\n"
	"      --fsync              put a file onto the disk before it is called complete\n"
	"      --verify-on-send     hash each chunk again before it is sent\n"
	"  -u, --user NAME          become this user when the files and the port are open\n"
	"  -j, --jobs N             check chunks with N processes (default: one per CPU)\n"
	"      --order=ascending    fetch in the file's order, from its first chunk on\n"
	"      --timeout SECONDS    how long a peer may be silent (default 10)\n"
	"      --give-up SECONDS    exit when nothing has arrived for so long, even if\n"
	"                           this peer serves (default: never)\n"
	"      --linger SECONDS     serve until the download has ended and nobody has\n"
	"                           asked for so long, then exit (default: for ever)\n"
	"      --status FILE        write the state to FILE each second, - for stdout\n"
	"      --timestamps         begin each message with the time\n"
	"  -q, --quiet              print only errors and \"listening on\"\n"
	"  -v, --verbose            print what becomes of each peer\n"
	"  -h, --help               print this and exit\n"
	"  -V, --version            print the version and exit\n"
	"\n"
	"In the progress bar, # is verified, > arriving, + verified in part, . missing.\n"
	"\n"
	"Exit status: 0, all files are complete; 1, a file can't be read or written;\n"
	"2, wrong usage; 3, the disk is full; 4, given up; 5, ended by a signal before\n"
	"all files were complete; 6, a bad metafile. SIGTERM and SIGINT end a peer;\n"
	"SIGUSR1 makes it print what it does.\n";

#define PEERS_MAX 64
#define OLDERS_MAX 64
#define SILENCE_S 10	/* the default of --timeout */

/* The command line, and the files that it names. */
struct settings {
	char *metafiles, *outputs;	/* joined by ':' */
	const char *status;		/* where to write it; NULL: nowhere */
	struct datafile *files;
	size_t count;			/* of files */
	struct address self;
	struct address peers[PEERS_MAX];
	struct older olders[OLDERS_MAX];
	const struct passwd *user;	/* to become; NULL: stay the same */
	bool client_only, force, sync;
	bool has_stdout;		/* it was open when the program began */
	bool to_stdout;			/* the one file goes there */
	struct fetch_options fetch;
	struct serve_options serve;
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
		fatal("%s", text);
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

static uint64_t parse_rate(const char *text)
{
	uint64_t rate;

	if (!args_size(text, 1024, UINT64_C(1) << 40, &rate))
		args_misuse("not a rate from 1K to 1024G: \"%s\"", text);
	return rate;
}

static unsigned cpu_count(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	return n < 1 ? 1 : n > SCAN_WORKERS_MAX ? SCAN_WORKERS_MAX : (unsigned)n;
}

static void parse_options(struct settings *s, int argc, char **argv)
{
	enum {
		PEER = 256, FROM, ORDER, TIMEOUT, GIVE_UP, LINGER, STATUS, MAX_UPLOAD, MAX_DOWNLOAD,
		TIMESTAMPS, VERIFY_ON_SEND, VERIFY_WHOLE, FSYNC
	};
	static const struct option options[] = {
		{"client-only", no_argument, NULL, 'c'},
		{"output", required_argument, NULL, 'o'},
		{"force", no_argument, NULL, 'f'},
		{"from", required_argument, NULL, FROM},
		{"peer", required_argument, NULL, PEER},
		{"max-clients", required_argument, NULL, 'm'},
		{"max-upload", required_argument, NULL, MAX_UPLOAD},
		{"max-download", required_argument, NULL, MAX_DOWNLOAD},
		{"verify-whole", no_argument, NULL, VERIFY_WHOLE},
		{"fsync", no_argument, NULL, FSYNC},
		{"verify-on-send", no_argument, NULL, VERIFY_ON_SEND},
		{"user", required_argument, NULL, 'u'},
		{"jobs", required_argument, NULL, 'j'},
		{"order", required_argument, NULL, ORDER},
		{"timeout", required_argument, NULL, TIMEOUT},
		{"give-up", required_argument, NULL, GIVE_UP},
		{"linger", required_argument, NULL, LINGER},
		{"status", required_argument, NULL, STATUS},
		{"timestamps", no_argument, NULL, TIMESTAMPS},
		{"quiet", no_argument, NULL, 'q'},
		{"verbose", no_argument, NULL, 'v'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{0},
	};
	uint64_t number;
	int option;

	while ((option = getopt_long(argc, argv, "co:fp:m:u:j:qvhV", options, NULL)) != -1)
		switch (option) {
		case 'c': s->client_only = true; break;
		case 'o': s->outputs = optarg; break;
		case 'f': s->force = true; break;
		case FROM:
			if (s->fetch.older_count == OLDERS_MAX)
				args_misuse("more than %d files to copy from: \"%s\"", OLDERS_MAX, optarg);
			s->olders[s->fetch.older_count++].path = optarg;
			break;
		case 'p':	/* what earlier versions took for --peer */
		case PEER: parse_peer(s, optarg); break;
		case 'm': s->serve.max_clients = parse_number("clients", optarg, 65536); break;
		case MAX_UPLOAD: s->serve.max_upload = parse_rate(optarg); break;
		case MAX_DOWNLOAD: s->fetch.max_download = parse_rate(optarg); break;
		case VERIFY_WHOLE: s->fetch.verify_whole = true; break;
		case FSYNC: s->sync = true; break;
		case VERIFY_ON_SEND: s->serve.verify = true; break;
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
		case LINGER:
			if (!args_number(optarg, 0, 1u << 30, &number))
				args_misuse("not a number of seconds from 0 to %u: \"%s\"", 1u << 30, optarg);
			s->serve.linger_s = (int64_t)number;
			break;
		case STATUS: s->status = optarg; break;
		case TIMESTAMPS: log_timestamps(); break;
		case 'q': log_set_level(LOG_QUIET); break;
		case 'v': log_set_level(LOG_VERBOSE); break;
		case 'h': args_help();
		case 'V': args_version();
		default: args_misuse(NULL);
		}
}

/* Reads the operands in either form: five, or three with ports behind colons. "-" in
 * the tracker's place means that there is none. */
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
		s->fetch.tracker_host = tracker;
		s->fetch.tracker_port = tracker_port;
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
	if (s->client_only && s->serve.linger_s >= 0)
		args_misuse("--linger needs a peer that serves, without --client-only");
	if (s->fetch.tracker_host == NULL && s->fetch.peer_count == 0 && s->client_only)
		args_misuse("without a tracker, --client-only needs a --peer");
}

/* Whether joined, parts with ':' between them, has that part. NULL has none. */
static bool has_part(const char *joined, const char *part)
{
	while (joined != NULL) {
		size_t length = strcspn(joined, ":");
		if (length == strlen(part) && memcmp(joined, part, length) == 0)
			return true;
		joined = joined[length] == ':' ? joined + length + 1 : NULL;
	}
	return false;
}

/* The file is to go to standard output. What doesn't go with that is misuse. */
static void check_stdout(const struct settings *s)
{
	if (strcmp(s->outputs, "-") != 0 || strchr(s->metafiles, ':') != NULL)
		args_misuse("only one file can go to standard output (./- is a file of that name)");
	if (!s->client_only)
		args_misuse("-o - needs --client-only: a peer that serves keeps the file, and says on "
			    "standard output where it listens");
	if (s->status != NULL && strcmp(s->status, "-") == 0)
		args_misuse("with -o -, the status can't go to standard output, too");
	if (s->fetch.older_count > 0)
		args_misuse("with -o -, there can be no --from: no file is kept that all could be copied to");
	if (s->fetch.verify_whole)
		args_misuse("with -o -, --verify-whole would come too late: all is written by then");
	if (s->sync)
		args_misuse("with -o -, there is no file to be put onto the disk by --fsync");
	if (!s->has_stdout || (fcntl(STDOUT_FILENO, F_GETFL) & O_ACCMODE) == O_RDONLY)
		args_misuse("standard output is not open for writing");
	if (isatty(STDOUT_FILENO) && !s->force)
		args_misuse("standard output is a terminal; --force writes to it all the same");
}

/* ---- start-up ------------------------------------------------------------- */

static size_t count_parts(const char *joined)
{
	size_t count = 1;

	for (; *joined != '\0'; joined++)
		count += *joined == ':';
	return count;
}

static bool has_empty_part(const char *joined)
{
	return *joined == ':' || *joined == '\0' || joined[strlen(joined) - 1] == ':' ||
	       strstr(joined, "::") != NULL;
}

/* Finds out whether the data file may be overwritten. That may take a while. */
static int claim(struct datafile *file, const struct settings *s)
{
	progress_begin_one("checking", file, 0);
	int result = datafile_claim(file, s->force, s->fetch.check_workers, progress_checked);
	progress_end();
	return result;
}

/* Returns the part of *joined before the next ':', and moves *joined behind that. */
static char *next_part(char **joined)
{
	char *part = *joined;

	*joined += strcspn(part, ":");
	if (**joined == ':')
		*(*joined)++ = '\0';
	return part;
}

/* Opens the files to copy from. Returns 0; or -1 after a message. */
static int open_olders(struct settings *s)
{
	for (size_t i = 0; i < s->fetch.older_count; i++)
		if (older_open(&s->olders[i], s->olders[i].path) < 0 ||
		    older_overlap(&s->olders[i], s->files, s->count))
			return -1;
	return 0;
}

/* Only the fetcher copies from them. */
static void close_olders(const struct settings *s)
{
	for (size_t i = 0; i < s->fetch.older_count; i++)
		close(s->olders[i].fd);
}

/* Opens all files. If one can't be used, the program ends before it uses the network. */
static void open_files(struct settings *s)
{
	char *metafiles = s->metafiles, *outputs = s->outputs;
	int status = EXIT_DONE;

	s->count = count_parts(metafiles);
	if (outputs != NULL && (count_parts(outputs) != s->count || has_empty_part(outputs)))
		args_misuse("--output needs the name of one data file for each metafile");
	if (s->count > FILES_MAX)
		args_misuse("more than %d metafiles", FILES_MAX);
	s->files = Calloc(s->count, sizeof *s->files);
	for (size_t i = 0; i < s->count; i++) {
		char *metafile = next_part(&metafiles);
		char *output = outputs != NULL ? next_part(&outputs) : NULL;
		s->files[i].force = s->force;
		s->files[i].sync = s->sync;
		int result = s->to_stdout ? outlet_open(&s->files[i], metafile)
					  : datafile_open(&s->files[i], metafile, output);
		if (result < 0 && status == EXIT_DONE)
			status = datafile_metafile_is_bad(&s->files[i]) ? EXIT_METAFILE : EXIT_UNABLE;
	}
	if (status == EXIT_DONE)
		status_files(s->files, s->count);
	if (status == EXIT_DONE && datafile_overlap(s->files, s->count))
		status = EXIT_UNABLE;
	if (status == EXIT_DONE && open_olders(s) < 0)
		status = EXIT_UNABLE;
	for (size_t i = 0; i < s->count && status == EXIT_DONE; i++)
		if (claim(&s->files[i], s) < 0)
			status = EXIT_UNABLE;
	if (status != EXIT_DONE) {
		status_end(status);
		exit(status);
	}
}

/* With --user, becomes another user than root. The files are open, but the children
 * will open them again, so that user must be able to read them. */
static void become_user(const struct settings *s)
{
	const struct passwd *user = s->user;

	if (user == NULL)
		return;
	if (setgroups(1, &user->pw_gid) < 0 || setgid(user->pw_gid) < 0 || setuid(user->pw_uid) < 0)
		fatal("can't become user %s", user->pw_name);
	for (size_t i = 0; i < s->count; i++)
		if (!s->files[i].temporary && access(s->files[i].path, R_OK) < 0)
			fatal("%s: %s can't read it", s->files[i].path, user->pw_name);
	log_info("running as %s from here on", user->pw_name);
}

/* Each file that is fetched needs two descriptors. Allows as many as the hard limit. */
static void allow_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);	/* if this fails, a later open may, with a message */
	}
}

/* The files that are open, for the signal handler. */
static struct { const struct datafile *files; size_t count; } opened;

/* Says what is kept, once a download can have begun. */
static void say_interrupted(void)
{
	char bytes[FORMAT_BYTES_SIZE], text[64] = "interrupted: ";
	uint64_t held = 0;

	for (size_t i = 0; i < opened.count; i++) {
		const struct datafile *d = &opened.files[i];
		if (!datafile_is_checked(d))
			return;
		held += datafile_held_bytes(d, held_count(d->held));
	}
	if (opened.count == 0)
		return;
	if (opened.files[0].temporary) {
		log_in_handler("interrupted: standard output is incomplete, and nothing is kept");
		return;
	}
	strcat(text, format_bytes((double)held, bytes));
	log_in_handler(strcat(text, " kept, the same command goes on"));
}

/* A download was interrupted. The children end with this process. */
static void on_end(int sig)
{
	(void)sig;
	log_erase();
	say_interrupted();
	status_end(EXIT_INTERRUPTED);
	_exit(EXIT_INTERRUPTED);
}

static void set_up_process(void)
{
	Signal(SIGCHLD, SIG_DFL);	/* if it were ignored, wait would not tell how children end */
	Signal(SIGPIPE, SIG_IGN);	/* write fails instead */
	Signal(SIGXFSZ, SIG_IGN);	/* likewise, if a file may not grow */
	process_on_end(on_end);		/* until serve_block_signals is called */
	allow_descriptors();
}

/* ---- fetching and serving -------------------------------------------------- */

/* With --client-only, this process is the fetcher. Returns the exit status. */
static int fetch_only(struct settings *s)
{
	opened.files = s->files;
	opened.count = s->count;
	Signal(SIGUSR1, progress_on_request);
	s->fetch.self = s->self;
	s->fetch.news = -1;
	int status = fetch_files(s->files, s->count, &s->fetch);
	status_end(status);
	return status;
}

/* Forks the fetcher. The two processes share the map of held chunks of each file, and
 * tell each other news (net/news.h). */
static void fork_fetcher(struct settings *s, int listen_fd)
{
	if (news_open(&s->serve.news, &s->fetch.news) < 0)
		fatal("can't make a pair of sockets");
	s->serve.fetcher = process_fork("fetcher");
	if (s->serve.fetcher < 0)
		fatal("can't fork the fetcher");
	if (s->serve.fetcher > 0) {
		close(s->fetch.news);
		close_olders(s);
		return;
	}
	close(listen_fd);
	close(s->serve.news);
	status_leave();
	s->fetch.self = s->self;
	exit(fetch_files(s->files, s->count, &s->fetch));
}

/* This process is the serving parent. Returns the exit status. */
static int serve_all(struct settings *s, int listen_fd)
{
	s->serve.files = s->files;
	s->serve.count = s->count;
	s->serve.listen_fd = listen_fd;
	s->serve.tracker_host = s->fetch.tracker_host;
	s->serve.tracker_port = s->fetch.tracker_port;
	s->serve.self = s->self;
	return serve(&s->serve);
}

int main(int argc, char **argv)
{
	struct settings s = {
		.fetch = {
			.peers = s.peers, .olders = s.olders, .check_workers = cpu_count(), .time_scale = 1,
		},
		.serve = {.max_clients = MAX_CLIENTS_DEFAULT, .linger_s = -1},
	};

	Signal(SIGUSR1, SIG_IGN);	/* until there is something to report */
	s.has_stdout = fcntl(STDOUT_FILENO, F_GETFD) >= 0 || errno != EBADF;
	args_program("cascade", usage_text, help_text);
	parse_options(&s, argc, argv);
	parse_operands(&s, argc - optind, argv + optind);
	s.to_stdout = has_part(s.outputs, "-");
	if (s.to_stdout) {
		check_stdout(&s);
		s.fetch.ascending = true;
	}
	set_up_process();
	if (s.status != NULL)
		status_open(s.status);
	open_files(&s);
	if (s.client_only) {
		become_user(&s);
		return fetch_only(&s);
	}
	serve_block_signals();
	int listen_fd = listen_open(&s.self, true);
	become_user(&s);
	fork_fetcher(&s, listen_fd);
	return serve_all(&s, listen_fd);
}
