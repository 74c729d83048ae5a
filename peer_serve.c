/* peer_serve.c - the serving parent.
 *
 *   serving parent ─┬─ child: answers one client, exits (serve/serve_client.c)
 *                   ├─ child ...
 *                   ├─ subscriber: tells the tracker what is held (serve/subscriber.c)
 *                   └─ (fetcher: forked before, reaped here)
 *
 * The parent waits, accepts, forks and reaps. It never waits for a client anywhere else, and
 * never reads what clients send. A child serves one client: if it fails, only its own client is
 * affected. It can't write to the map of held chunks. What it can write to, shared with
 * the parent and the other children, is in base/confine.h. */
#include "peer_serve.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/confine.h"
#include "base/exits.h"
#include "base/log.h"
#include "base/process.h"
#include "base/sigpoll.h"
#include "base/wait.h"
#include "file/status.h"
#include "net/listen.h"
#include "net/news.h"
#include "net/wire.h"
#include "serve/clients.h"
#include "serve/give_way.h"
#include "serve/limit.h"
#include "serve/report.h"
#include "serve/serve_client.h"
#include "serve/subscriber.h"
#include "serve/turns.h"

#define PAUSE_MS 100		/* after accept or fork failed: the system is short of something */
#define FULL_PAUSE_MS 20	/* while there is no free place and no client gives way */
#define ACCEPTS_AT_ONCE 64	/* before the parent does anything else */
#define LOST_MS 500		/* between two attempts to report lost lines */

static const struct serve_options *options;
static pid_t fetcher;			/* 0: it has ended */
static int fetcher_status;		/* its exit status, when it has ended */
static struct upload_limit *limit;	/* NULL: there is none */
static struct turns *turns;
static int confinement = -1;		/* of the children (base/confine.h) */

/* ---- signals --------------------------------------------------------------- */

/* Set by signals. These are blocked except inside sigpoll, so none can come between a
 * look at these flags and the wait. */
static volatile sig_atomic_t ending, report_wanted;

static const int signals[] = {SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGUSR1};
#define SIGNALS (sizeof signals / sizeof signals[0])

static void on_signal(int sig)
{
	if (sig == SIGUSR1)
		report_wanted = 1;
	else if (sig != SIGCHLD)
		ending = 1;
}

void serve_block_signals(void)
{
	struct sigaction action = {.sa_handler = on_signal};
	sigset_t set;

	sigemptyset(&set);
	sigfillset(&action.sa_mask);
	for (size_t i = 0; i < SIGNALS; i++) {	/* no call can fail here */
		struct sigaction before;
		sigaction(signals[i], NULL, &before);
		if (signals[i] == SIGHUP && before.sa_handler == SIG_IGN)
			continue;	/* nohup(1) */
		sigaddset(&set, signals[i]);
		sigaction(signals[i], &action, NULL);
	}
	sigprocmask(SIG_BLOCK, &set, NULL);
}

/* ---- accept and fork ------------------------------------------------------- */

/* Tells a client that no process can be forked for it, with a status that means "ask
 * again later". */
static void turn_away(int fd)
{
	static const char message[] = SERVE_BUSY_MESSAGE;
	uint8_t answer[PEER_RESPONSE_SIZE + sizeof message - 1];

	peer_response_encode(answer, &(struct peer_response){
		.status = PEER_NO_CHUNK_YET, .length = sizeof message - 1});
	memcpy(answer + PEER_RESPONSE_SIZE, message, sizeof message - 1);
	(void)!send(fd, answer, sizeof answer, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* All that a child does. */
static _Noreturn void run_child(int fd, struct client_slot *slot, unsigned number)
{
	struct client_context context = {
		.files = options->files, .count = options->count, .slot = slot,
		.limit = limit, .turns = turns, .child = number, .verify = options->verify,
	};

	close(options->listen_fd);
	close(options->news);
	if (limit != NULL)
		limit_close_giver(limit);
	if (confine_self(confinement) == 0) {
		serve_client(fd, &context);
		_exit(EXIT_SUCCESS);
	}
	int error = errno;
	serve_nothing(fd, &context);
	_exit(error);
}

/* Forks a child for the client. Returns false if it can't. */
static bool start_child(int fd, struct address client)
{
	struct child *place = clients_free_place();
	struct client_slot *slot = place->slot;
	unsigned number = place->number;

	turns_join(turns, number);
	pid_t pid = process_fork_blocked();
	if (pid == 0)
		run_child(fd, slot, number);
	if (pid > 0)
		clients_add(place, pid, client);
	else
		turns_leave(turns, number);
	return pid > 0;
}

/* Accepts clients that wait, and forks a child for each. Returns for how many ms to
 * leave the others waiting. */
static int accept_clients(void)
{
	static int64_t accept_said_ms, fork_said_ms;

	for (int i = 0; i < ACCEPTS_AT_ONCE && !clients_is_full(); i++) {
		struct address client;
		int fd = listen_accept(options->listen_fd, &client);
		if (fd < 0 && errno == EAGAIN)
			return 0;
		if (fd < 0) {
			if (log_may_say(&accept_said_ms))
				log_warn("can't accept a connection");
			return PAUSE_MS;
		}
		bool started = start_child(fd, client);
		if (!started) {
			if (log_may_say(&fork_said_ms))
				log_warn("can't fork for a client");
			turn_away(fd);
		}
		close(fd);
		if (!started)
			return PAUSE_MS;
	}
	return 0;
}

/* A client waits. Result as above. The end of a child ends the pause. */
static int take_clients(void)
{
	if (!clients_is_full())
		return accept_clients();
	return give_way() ? PAUSE_MS : FULL_PAUSE_MS;
}

/* ---- reap ------------------------------------------------------------------ */

static void fetcher_ended(int status)
{
	const char *how = process_end_text(status);

	fetcher = 0;
	for (size_t i = 0; i < options->count; i++)
		datafile_writer_ended(&options->files[i]);
	fetcher_status = WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_UNABLE;
	status_doing(how == NULL ? STATUS_COMPLETE : STATUS_FAILED);
	if (how != NULL)
		log_erase();
	log_beside_drawn(false);
	if (how != NULL && fetcher_status != EXIT_GAVE_UP)
		log_warnx("the fetcher has ended: %s; what is held is still served", how);
}

static void reap(void)
{
	struct child *child;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		if (pid == fetcher)
			fetcher_ended(status);
		else if (!subscriber_ended(pid, status) && (child = clients_ended(pid, status)) != NULL)
			turns_leave(turns, child->number);
}

static void end_children(void)
{
	clients_kill();
	subscriber_kill();
	if (fetcher != 0)
		kill(fetcher, SIGKILL);
	while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
		;
	if (fetcher != 0)
		log_erase();
}

/* ---- lingering ------------------------------------------------------------- */

#define LINGER_LOOK_MS 1000	/* between two looks at what was sent */

static int64_t end_at_ms = INT64_MAX;	/* as of clock_ms */

/* With --linger, this peer ends when the fetcher has, and nobody has asked for so long. */
static void linger(void)
{
	int64_t linger_ms = options->linger_s * 1000;

	if (options->linger_s < 0 || fetcher != 0)
		return;
	if (clients_were_sent_to())
		end_at_ms = clock_ms() + (linger_ms > LINGER_LOOK_MS ? linger_ms : LINGER_LOOK_MS);
	else if (end_at_ms == INT64_MAX)
		end_at_ms = clock_ms() + linger_ms;
}

/* ---- wait ------------------------------------------------------------------ */

/* When something must be done even if nothing happens. */
static int64_t next_duty_ms(int64_t accept_at_ms)
{
	int64_t now = clock_ms(), next_ms = subscriber_next_ms(now + 3600000);

	if (end_at_ms != INT64_MAX)
		next_ms = clock_earlier(next_ms, clock_earlier(end_at_ms, now + LINGER_LOOK_MS));
	if (accept_at_ms > now)
		next_ms = clock_earlier(next_ms, accept_at_ms);
	next_ms = status_next_ms(next_ms);
	if (log_tell_lost())
		next_ms = clock_earlier(next_ms, now + LOST_MS);
	if (limit != NULL && clients_count() > 0)
		next_ms = clock_earlier(next_ms, now + LIMIT_GIVE_MS);
	return next_ms;
}

/* The arguments are right, so the system is short of something. */
static void poll_failed(void)
{
	static int64_t said_ms;
	sigset_t none, blocked;

	if (log_may_say(&said_ms))
		log_warn("can't wait for clients");
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, &blocked);	/* as sigpoll would have done */
	wait_ms(PAUSE_MS);
	sigprocmask(SIG_SETMASK, &blocked, NULL);
}

/* Waits for a client, for news from the fetcher, for a signal, or for time to pass, and
 * accepts clients. Before *accept_at_ms no client is accepted. */
static void wait_and_accept(int64_t *accept_at_ms)
{
	struct pollfd polled[2] = {
		{.fd = *accept_at_ms <= clock_ms() ? options->listen_fd : -1, .events = POLLIN},
		{.fd = fetcher != 0 ? options->news : -1, .events = POLLIN},
	};
	int ms = clock_poll_timeout(next_duty_ms(*accept_at_ms));
	struct timespec timeout = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
	sigset_t none;

	sigemptyset(&none);
	/* If a descriptor is ready, sigpoll may return before it lets a signal in. This
	 * call lets it in. */
	int n = sigpoll(NULL, 0, &(struct timespec){0}, &none);
	if (n == 0)
		n = sigpoll(polled, 2, &timeout, &none);
	if (n < 0 && errno != EINTR)
		poll_failed();
	if (n < 0 && errno == EINTR)
		*accept_at_ms = 0;	/* perhaps a child has ended */
	if (n > 0 && polled[0].revents != 0)
		*accept_at_ms = clock_ms() + take_clients();
	if (n > 0 && polled[1].revents != 0)
		wait_drain(options->news);	/* the loop sees what is new */
}

/* ---- from beginning to end ------------------------------------------------- */

/* Gives up what only the fetcher needs: the lock on each data file (by closing it), and
 * the right to mark chunks as held. */
static void leave_files_to_fetcher(void)
{
	int *fds = calloc(options->count, sizeof *fds);

	if (fds == NULL)
		fatal("no memory for %zu files", options->count);
	for (size_t i = 0; i < options->count; i++)
		fds[i] = options->files[i].fd;
	confinement = confine_prepare(fds, options->count);
	for (size_t i = 0; i < options->count; i++) {
		close(fds[i]);
		datafile_map_read_only(&options->files[i]);
	}
	free(fds);
}

static void set_up(void)
{
	clients_begin(options->max_clients);
	turns = turns_new(options->max_clients, options->count);
	if (turns == NULL)
		fatal("no memory for the turns of %u clients", options->max_clients);
	log_never_wait();
	log_beside_drawn(true);	/* the fetcher redraws its progress */
	leave_files_to_fetcher();
	if (options->max_upload != 0)
		limit = limit_new(options->max_upload);
	subscriber_begin(&(struct subscriber_options){
		.tracker_host = options->tracker_host, .tracker_port = options->tracker_port,
		.self = options->self, .files = options->files, .count = options->count,
		.news = options->news, .listen_fd = options->listen_fd,
	});
}

/* What the exit status is, if this process ends now. Says what is incomplete. */
static int exit_status(void)
{
	int status = fetcher_status == EXIT_GAVE_UP ? EXIT_GAVE_UP
						    : report_end(options->files, options->count);

	return fetcher_status != EXIT_DONE ? fetcher_status : status;
}

int serve(const struct serve_options *serve_options)
{
	int64_t accept_at_ms = 0;	/* not static: each fork would make its page be copied again */

	options = serve_options;
	fetcher = options->fetcher;
	set_up();
	for (;;) {
		reap();
		linger();
		if (ending || fetcher_status == EXIT_GAVE_UP || clock_ms() >= end_at_ms)
			break;
		subscriber_start_if_due(fetcher != 0);
		report_counts();
		if (status_is_due()) {
			status_serving(clients_count(), clients_sent_kib() * 1024);
			status_show();
		}
		if (report_wanted) {
			report_wanted = 0;
			report_status(options->files, options->count);
		}
		if (limit != NULL && clients_count() > 0)
			limit_give(limit);
		wait_and_accept(&accept_at_ms);
	}
	end_children();
	int status = exit_status();
	status_serving(clients_count(), clients_sent_kib() * 1024);
	status_end(status);
	return status;
}
