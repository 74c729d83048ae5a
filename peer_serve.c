/* peer_serve.c - the serving parent.
 *
 *   serving parent ─┬─ child: answers one client, exits (serve_client.c)
 *                   ├─ child ...
 *                   ├─ subscriber: tells the tracker what is held, exits
 *                   └─ (fetcher: forked before, reaped here)
 *
 * The parent does nothing that could block, and nothing with what clients send:
 * it accepts, forks and reaps. A child trusts nothing that it reads, and is
 * alone with its client; whatever happens to it happens to no other. */
#define _GNU_SOURCE	/* accept4, before POSIX.1-2024 */
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
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "serve/confine.h"
#include "base/log.h"
#include "base/process.h"
#include "base/sigpoll.h"
#include "fetch/progress.h"
#include "serve/serve_client.h"
#include "serve/turns.h"
#include "net/tracker_query.h"

#define PAUSE_MS 100		/* after accept or fork failed for want of something */
#define FULL_PAUSE_MS 20	/* at the bound, while everybody is busy */
#define ACCEPTS_AT_ONCE 64	/* before the parent looks up again */
#define SILENT_MS 100		/* a client that asks for no chunk, of no use for longer, can give way, */
#define SLOW_MS 1000		/* and so can one that is slow to take its chunks */
#define TOKENS_MAX 10		/* for sending, in store */
#define TOKEN_BYTES_MAX (1u << 30)
#define TOKENS_MS 10		/* between two looks at whether more are due */
#define SUBSCRIBE_MS 600000	/* between two subscriptions */
#define RETRY_MS 10000		/* after a subscription that failed, and for its answer */
#define COUNTED_MS 10000	/* between two lines that count what happened often */
#define LOST_MS 500		/* between two attempts to tell of lines that were lost */

struct child {
	pid_t pid;		/* 0: free */
	struct address client;
	int64_t start_ms;
	bool leaving;		/* was told to give way */
};

/* The parent's own state. */
static const struct serve_options *options;
static struct client_slot *slots;	/* one for each child, shared with it */
static struct turns *turns;		/* likewise */
static pid_t fetcher, subscriber;	/* 0: has ended */
static bool *subscribed;		/* of each file: the tracker knows it */
static bool said_tracker_trouble;
static int64_t subscribe_at_ms;
static struct upload_limit *limit;	/* in shared memory; NULL: there is none */
static int64_t limit_since_ms;
static uint64_t tokens_given;		/* since then, or thrown away for want of takers */
static int confinement = -1;
static int64_t counted_at_ms;
static bool fetcher_failed, fetcher_gave_up;
static atomic_uint *lost_lines;		/* of this process and its children */

/* What changes with every client. No child gets it: that would show each the
 * others, and make a fork dearer, since the parent would have to copy the page
 * when it next writes to it. */
static struct {
	unsigned count, free_hint;	/* children; none before the hint is free */
	unsigned leaving;		/* children that were told to give way */
	unsigned gave_way, died;	/* not reported yet */
	uint64_t served, sent_kib;	/* by children that have ended */
	struct child child[];		/* max_clients of them */
} *clients;

/* Set by signals, which arrive inside sigpoll alone. */
static volatile sig_atomic_t ending, status_wanted;

static const int signals[] = {SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGUSR1};
#define SIGNALS (sizeof signals / sizeof signals[0])

static void on_signal(int sig)
{
	if (sig == SIGUSR1)
		status_wanted = 1;
	else if (sig != SIGCHLD)
		ending = 1;
}

/* They are handled inside sigpoll alone: none can come between a look at the
 * state and the wait. */
void serve_block_signals(void)
{
	struct sigaction action = {.sa_handler = on_signal};
	sigset_t set;

	sigemptyset(&set);
	sigfillset(&action.sa_mask);
	for (size_t i = 0; i < SIGNALS; i++) {	/* no call fails: the signals exist */
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

	return !atomic_load(options->files[i].lost) && atomic_load(&held->some) && (atomic_load(&held->checked) || fetcher == 0);
}

static void run_subscriber(void)
{
	static struct subscription answer;
	char why[TRACKER_WHY_SIZE];
	int failures = 0;

	close(options->listen_fd);
	for (size_t i = 0; i < options->count; i++) {
		struct tracker_request request = {.command = TRACKER_SUBSCRIBE, .self = options->self};
		if (!can_subscribe(i))
			continue;
		memcpy(request.cascade_hash, options->files[i].meta.cascade_hash, SHA256_HASH_SIZE);
		int count = tracker_exchange(options->tracker_host, options->tracker_port, request, RETRY_MS,
					     answer.entries, why);
		if (count >= 0) {
			answer.file = i;
			answer.count = (size_t)count;
			/* Where the fetcher has no time or has ended, it is not needed. */
			(void)!write(options->news, &answer, sizeof answer);
			continue;
		}
		if (failures == 0 && !said_tracker_trouble)
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

/* For a trouble that comes back with each client: said at most every 10 s. The
 * caller keeps *again_ms for each kind of trouble, 0 at first. */
static void warn_now_and_then(int64_t *again_ms, const char *what)
{
	int64_t now = clock_ms();

	if (now < *again_ms)
		return;
	log_warn("%s", what);
	*again_ms = now + COUNTED_MS;
}

/* A child's exit status is 0, or the errno of what kept it from serving. */
static void child_exited(int error)
{
	static int64_t again_ms;

	errno = error;
	if (error != 0)
		warn_now_and_then(&again_ms, "a child can't confine itself; its client was turned away");
}

static void child_ended(pid_t pid, int status)
{
	for (unsigned i = 0; i < options->max_clients; i++) {
		if (clients->child[i].pid != pid)
			continue;
		if (clients->child[i].leaving)
			clients->leaving--;
		else if (WIFSIGNALED(status))
			clients->died++;
		else
			child_exited(WEXITSTATUS(status));
		clients->served++;
		clients->sent_kib += atomic_load(&slots[i].sent_kib);
		clients->child[i].pid = 0;
		turns_leave(turns, i);
		clients->count--;
		if (i < clients->free_hint)
			clients->free_hint = i;
		return;
	}
}

/* What clients do is no news; how many did it, now and then, is. */
static void report_counts(void)
{
	int64_t now = clock_ms();

	if (clients->gave_way + clients->died == 0 || now < counted_at_ms)
		return;
	if (clients->gave_way > 0)
		log_info("%u silent or slow clients had to give way to others", clients->gave_way);
	if (clients->died > 0)
		log_warnx("%u children were killed by a signal", clients->died);
	clients->gave_way = clients->died = 0;
	counted_at_ms = now + COUNTED_MS;
}

static void fetcher_ended(int status)
{
	const char *how = process_end_text(status);

	fetcher = 0;
	fetcher_failed = how != NULL;
	fetcher_gave_up = WIFEXITED(status) && WEXITSTATUS(status) == FETCHER_GAVE_UP;
	if (fetcher_failed)
		progress_erase_anothers();
	if (fetcher_failed && !fetcher_gave_up && !ending)	/* the terminal's signals go to both */
		log_warnx("the fetcher has ended: %s; what is held is still served", how);
}

static void reap(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		if (pid == fetcher) {
			fetcher_ended(status);
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
	static const char message[] = SERVE_BUSY_MESSAGE;
	uint8_t answer[PEER_RESPONSE_SIZE + sizeof message - 1];

	peer_response_encode(answer, &(struct peer_response){
		.status = PEER_NO_CHUNK_YET, .length = sizeof message - 1});
	memcpy(answer + PEER_RESPONSE_SIZE, message, sizeof message - 1);
	(void)!send(fd, answer, sizeof answer, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* False: there could be no process. */
static bool start_child(int fd, struct address address)
{
	unsigned i = clients->free_hint;

	while (clients->child[i].pid != 0)
		i++;
	clients->free_hint = i + 1;
	memset(&slots[i], 0, sizeof slots[i]);
	turns_join(turns, i);
	pid_t pid = process_fork_blocked();
	if (pid == 0) {
		struct client_context context = {
			.files = options->files, .count = options->count, .slot = &slots[i],
			.limit = limit, .turns = turns, .child = i, .verify = options->verify,
		};
		close(options->listen_fd);
		close(options->news);
		if (limit != NULL)
			close(limit->tokens[1]);
		if (confine_self(confinement) == 0) {
			serve_client(fd, &context);
			_exit(EXIT_SUCCESS);
		}
		int error = errno;
		serve_nothing(fd, &context);
		_exit(error);
	}
	if (pid < 0) {
		clients->free_hint = i;
		turns_leave(turns, i);
		return false;
	}
	clients->child[i] = (struct child){.pid = pid, .client = address, .start_ms = clock_ms()};
	clients->count++;
	return true;
}

/* For how long, in ms, the child's client has been of no use (serve_client.h);
 * -1 if it may stay. */
static int64_t idle_ms(unsigned i)
{
	uint32_t state = atomic_load(&slots[i].state);	/* first: it is written last */
	uint32_t since_ms = atomic_load(&slots[i].since_ms);
	int32_t ms = (int32_t)((uint32_t)clock_ms() - since_ms);	/* negative: of use until later */
	int32_t longest_ms = state == CLIENT_SILENT ? SILENT_MS : SLOW_MS;

	if (state == CLIENT_WORKING || ms < longest_ms || atomic_load(&slots[i].state) != state)
		return -1;
	return ms;
}

/* At the bound: the child whose client has been of no use for longest ends, so
 * that a crowd of silent clients locks nobody out. False: all are at work. */
static bool make_way(void)
{
	unsigned idlest = 0;
	int64_t longest = -1;

	if (clients->leaving > 0)
		return true;	/* one is on its way */
	for (unsigned i = 0; i < options->max_clients; i++) {
		int64_t ms = clients->child[i].pid == 0 || clients->child[i].leaving ? -1 : idle_ms(i);
		if (ms > longest) {
			longest = ms;
			idlest = i;
		}
	}
	if (longest < 0)
		return false;
	kill(clients->child[idlest].pid, SIGKILL);
	clients->child[idlest].leaving = true;
	clients->leaving++;
	clients->gave_way++;
	return true;
}

static int accept_nonblocking(int listen_fd, struct sockaddr_in *sa, socklen_t *len)
{
#if defined(SOCK_NONBLOCK) && !defined(PORTABLE)
	return accept4(listen_fd, (struct sockaddr *)sa, len, SOCK_NONBLOCK);
#else
	int fd = accept(listen_fd, (struct sockaddr *)sa, len);

	if (fd >= 0 && fcntl(fd, F_SETFL, O_NONBLOCK) < 0) {
		int error = errno;
		close(fd);
		errno = error;
		return -1;
	}
	return fd;
#endif
}

/* Takes clients that wait. Returns how long to leave the others waiting. */
static int accept_clients(void)
{
	static int64_t accept_again_ms, fork_again_ms;

	for (int i = 0; i < ACCEPTS_AT_ONCE && clients->count < options->max_clients; i++) {
		struct sockaddr_in sa = {0};
		socklen_t len = sizeof sa;
		int fd = accept_nonblocking(options->listen_fd, &sa, &len);
		if (fd < 0) {
			if (errno == EAGAIN || errno == EWOULDBLOCK)
				return 0;
			if (errno == EINTR || errno == ECONNABORTED || errno == EPROTO)
				continue;
			warn_now_and_then(&accept_again_ms, "can't accept a connection");
			return PAUSE_MS;
		}
		bool started = start_child(fd, address_from_sockaddr(&sa));
		if (!started) {
			warn_now_and_then(&fork_again_ms, "can't fork for a client");
			turn_away(fd);
		}
		close(fd);
		if (!started)
			return PAUSE_MS;
	}
	return 0;
}

/* Somebody waits at the listening socket. */
static int take_clients(void)
{
	if (clients->count < options->max_clients)
		return accept_clients();
	/* The end of the child that makes way wakes sigpoll. */
	return make_way() ? PAUSE_MS : FULL_PAUSE_MS;
}

/* SIGUSR1: a line for each file, and one for each client. */
static void print_status(void)
{
	static const char *const states[] = {"working", "silent", "slow"};
	char address[ADDRESS_TEXT_SIZE], bytes[PROGRESS_BYTES_TEXT_SIZE], rate[PROGRESS_BYTES_TEXT_SIZE];
	int64_t now = clock_ms();

	for (size_t i = 0; i < options->count; i++)
		log_status("%s: %llu of %llu chunks held", options->files[i].path,
			   (unsigned long long)held_count(options->files[i].held),
			   (unsigned long long)options->files[i].meta.chunks);
	log_status("%u clients now, %llu before, who were sent %s", clients->count,
		   (unsigned long long)clients->served,
		   progress_bytes_text((double)clients->sent_kib * 1024, bytes));
	for (unsigned i = 0; i < options->max_clients; i++) {
		const struct child *c = &clients->child[i];
		double kib = (double)atomic_load(&slots[i].sent_kib);
		double seconds = (double)(now - c->start_ms) / 1000;
		if (c->pid == 0)
			continue;
		log_status("client %s: %s, %u chunks, %s, %s/s, child %ld", address_text(c->client, address),
			   states[atomic_load(&slots[i].state) % 3], (unsigned)atomic_load(&slots[i].chunks),
			   progress_bytes_text(kib * 1024, bytes),
			   progress_bytes_text(seconds > 0 ? kib * 1024 / seconds : 0, rate), (long)c->pid);
	}
}

static void read_news(void)
{
	char bytes[64];

	while (read(options->news, bytes, sizeof bytes) > 0)
		;
}

static void *shared_memory(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		fatal("memory");
	return memory;
}

/* A token is what may be sent in 10 ms, but no less than 1 KiB. */
static void start_limit(void)
{
	uint64_t bytes = options->max_upload / 100;

	if (options->max_upload == 0)
		return;
	limit = shared_memory(sizeof *limit);
	if (pipe(limit->tokens) < 0 || fcntl(limit->tokens[1], F_SETFL, O_NONBLOCK) < 0)
		fatal("can't make a pipe");
	limit->token_bytes = bytes < 1024 ? 1024 : bytes > TOKEN_BYTES_MAX ? TOKEN_BYTES_MAX : (uint32_t)bytes;
	limit_since_ms = clock_ms();
}

/* Gives the tokens that have become due, while somebody is there to use them.
 * Those that nobody took stay, up to a tenth of a second's. */
static void give_tokens(void)
{
	static const char tokens[TOKENS_MAX];
	double bytes = (double)(clock_ms() - limit_since_ms) / 1000 * (double)options->max_upload;
	uint64_t due = (uint64_t)(bytes / (double)limit->token_bytes) - tokens_given;
	int unused = 0;

	tokens_given += due;
	if (due == 0 || ioctl(limit->tokens[0], FIONREAD, &unused) < 0 || unused >= TOKENS_MAX)
		return;
	if (due > (uint64_t)(TOKENS_MAX - unused))
		due = (uint64_t)(TOKENS_MAX - unused);
	(void)!write(limit->tokens[1], tokens, (size_t)due);
}

/* It has none of the errors that its arguments could bring about: memory is
 * short, maybe. */
static void poll_failed(void)
{
	static int64_t again_ms;

	warn_now_and_then(&again_ms, "poll");
	nanosleep(&(struct timespec){.tv_nsec = PAUSE_MS * 1000000L}, NULL);
}

static void wait_and_handle(int64_t *accept_at_ms)
{
	int64_t now = clock_ms(), next_ms = now + 3600000;
	bool accepting = *accept_at_ms <= now;
	sigset_t none;

	if (log_tell_lost())
		next_ms = now + LOST_MS;
	if (subscribe_at_ms != 0 && subscriber == 0 && subscribe_at_ms < next_ms)
		next_ms = subscribe_at_ms;
	if (!accepting && *accept_at_ms < next_ms)
		next_ms = *accept_at_ms;
	if (limit != NULL && clients->count > 0) {
		give_tokens();
		next_ms = now + TOKENS_MS;
	}
	struct pollfd polled[2] = {
		{.fd = accepting ? options->listen_fd : -1, .events = POLLIN},
		{.fd = fetcher != 0 ? options->news : -1, .events = POLLIN},
	};
	int ms = clock_poll_timeout(next_ms);
	struct timespec timeout = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
	sigemptyset(&none);
	/* Where descriptors are ready at once, sigpoll may let no signal in; this does. */
	int n = sigpoll(NULL, 0, &(struct timespec){0}, &none);
	if (n == 0)
		n = sigpoll(polled, 2, &timeout, &none);
	if (n < 0) {
		if (errno == EINTR)
			*accept_at_ms = 0;	/* a child has ended, maybe */
		else
			poll_failed();
		return;
	}
	if (polled[0].revents != 0)
		*accept_at_ms = clock_ms() + take_clients();
	if (polled[1].revents != 0)
		read_news();
}

static void end_children(void)
{
	for (unsigned i = 0; i < options->max_clients; i++)
		if (clients->child[i].pid != 0)
			kill(clients->child[i].pid, SIGKILL);
	if (fetcher != 0)
		kill(fetcher, SIGKILL);
	if (subscriber != 0)
		kill(subscriber, SIGKILL);
	while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
		;
	if (fetcher != 0)
		progress_erase_anothers();
}

/* Memory that stays zero and the parent's own. */
static void *unshared_memory(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		fatal("memory");
#ifdef MADV_DONTFORK	/* without it all is as before, but slower */
	madvise(memory, size, MADV_DONTFORK);
#endif
	return memory;
}

static void set_up(void)
{
	int *fds = calloc(options->count, sizeof *fds);

	clients = unshared_memory(sizeof *clients + options->max_clients * sizeof clients->child[0]);
	subscribed = calloc(options->count, sizeof *subscribed);
	/* The number of lost lines shares the memory of the slots. */
	slots = shared_memory(options->max_clients * sizeof *slots + sizeof *lost_lines);
	lost_lines = (atomic_uint *)(void *)&slots[options->max_clients];
	turns = turns_new(options->max_clients, options->count);
	log_share_lost(lost_lines);
	log_never_wait();
	if (subscribed == NULL || fds == NULL || turns == NULL)
		fatal("memory");
	for (size_t i = 0; i < options->count; i++)
		fds[i] = options->files[i].fd;
	confinement = confine_prepare(fds, options->count);
	for (size_t i = 0; i < options->count; i++) {
		close(fds[i]);		/* and with it the lock is the fetcher's alone */
		options->files[i].held = held_read_only(options->files[i].held);
	}
	free(fds);
	start_limit();
}

/* Whether every file is complete; says which one isn't. */
static bool all_complete(void)
{
	for (size_t i = 0; i < options->count; i++) {
		const struct datafile *d = &options->files[i];
		uint64_t held = held_count(d->held);
		if (held == d->meta.chunks)
			continue;
		log_warnx("%s: ended with %llu of %llu chunks held", d->path, (unsigned long long)held,
			 (unsigned long long)d->meta.chunks);
		return false;
	}
	return true;
}

bool serve(const struct serve_options *serve_options)
{
	int64_t accept_at_ms = 0;

	options = serve_options;
	fetcher = options->fetcher;
	set_up();
	for (;;) {
		reap();
		if (ending || fetcher_gave_up)
			break;
		subscribe_if_due();
		report_counts();
		if (status_wanted) {
			status_wanted = 0;
			print_status();
		}
		wait_and_handle(&accept_at_ms);
	}
	end_children();
	return !fetcher_gave_up && all_complete() && !fetcher_failed;
}
