/* process.c - signals that end a program, and forking processes that end when their
 * parent ends. */
#include "base/process.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#if defined(__linux__) && !defined(PORTABLE)
#define HAVE_PDEATHSIG 1
#include <sys/prctl.h>
#endif

#include "base/log.h"
#include "csapp.h"

#ifdef HAVE_PDEATHSIG

static void end_with_parent(pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)	/* the parent ended before the call */
		_exit(EXIT_FAILURE);
}

#else

static volatile pid_t watched_parent;

static void on_tick(int sig)
{
	(void)sig;
	if (getppid() != watched_parent)
		_exit(EXIT_FAILURE);
}

static void end_with_parent(pid_t parent)
{
	struct sigaction action = {.sa_handler = on_tick, .sa_flags = SA_RESTART};
	struct itimerval second = {{1, 0}, {1, 0}};

	watched_parent = parent;
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &second, NULL);
}

#endif

void process_on_end(void (*handler)(int))
{
	struct sigaction hangup;

	Signal(SIGINT, handler);
	Signal(SIGTERM, handler);
	if (sigaction(SIGHUP, NULL, &hangup) < 0 || hangup.sa_handler != SIG_IGN)
		Signal(SIGHUP, handler);
}

/* What ends a whole group or terminal ends the parent, and the parent ends the child. If the
 * child ended by itself, the parent might learn of this before its own signal. */
static void reset_signals(void)
{
	static const int ignored[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1};
	struct sigaction action = {.sa_handler = SIG_IGN};
	sigset_t none;

	for (size_t i = 0; i < sizeof ignored / sizeof ignored[0]; i++)
		sigaction(ignored[i], &action, NULL);
	action.sa_handler = SIG_DFL;
	sigaction(SIGCHLD, &action, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

pid_t process_fork(const char *role)
{
	sigset_t all, before;
	pid_t parent = getpid(), child;

	/* No handler of the parent's may run in the child. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	child = fork();
	if (child == 0) {
		log_role(role);
		end_with_parent(parent);
		reset_signals();
		return 0;
	}
	int saved = errno;
	sigprocmask(SIG_SETMASK, &before, NULL);
	errno = saved;
	return child;
}

pid_t process_fork_piped(const char *role, int *from, int *to)
{
	int to_child[2], to_parent[2];

	if (pipe(to_child) < 0)
		return -1;
	if (pipe(to_parent) < 0) {
		close(to_child[0]);
		close(to_child[1]);
		return -1;
	}
	pid_t child = process_fork(role);
	*from = child == 0 ? to_child[0] : to_parent[0];
	*to = child == 0 ? to_parent[1] : to_child[1];
	close(child == 0 ? to_child[1] : to_child[0]);
	close(child == 0 ? to_parent[0] : to_parent[1]);
	if (child < 0) {
		close(*from);
		close(*to);
	}
	return child;
}

/* _Fork (POSIX.1-2024) leaves out what fork does for threads and fork handlers. The
 * programs have neither. */
#if defined(__GLIBC__) && !defined(PORTABLE)
#if __GLIBC_PREREQ(2, 34)
#define HAVE_FORK_ALONE 1
pid_t _Fork(void);	/* not declared in every mode */
#endif
#endif
#ifndef HAVE_FORK_ALONE
#define _Fork fork
#endif

pid_t process_fork_blocked(void)
{
	pid_t parent = getpid(), child = _Fork();

	if (child == 0)
		end_with_parent(parent);
	return child;
}

const char *process_end_text(int status)
{
	static char text[64];

	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return NULL;
	if (WIFSIGNALED(status))
		snprintf(text, sizeof text, "killed by signal %d (%s)", WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
	else
		snprintf(text, sizeof text, "exit status %d", WEXITSTATUS(status));
	return text;
}

const char *process_wait(pid_t child)
{
	int status;

	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return strerror(errno);
	return process_end_text(status);
}
