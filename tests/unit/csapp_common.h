/* csapp_common.h - what several of the test_csapp_*.c need: a clock that interrupts calls, and
 * a child with a descriptor of the test's. Include csapp.h first.
 *
 * Nothing in those tests sleeps to let another process go first: children and parent wait for
 * what the kernel tells them, and a timer signal that interrupts a blocked call also ends its
 * wait. A test that hangs is ended by SIGALRM or by the limit in tick(), and counts as failed. */
#ifndef CSAPP_COMMON_H
#define CSAPP_COMMON_H

#include "unit.h"

static inline void close_both(int end[2])
{
	close(end[0]);
	close(end[1]);
}

/* Starts f in a child, which has the second end of the pair as its descriptor fd. */
static inline pid_t start_with(int end[2], int fd, void (*f)(void))
{
	pid_t pid = unit_fork();

	if (pid == 0) {
		dup2(end[1], fd);
		close_both(end);
		f();
		_exit(0);
	}
	return pid;
}

/* ---- The ticking clock ---- */

/* SIGALRM each millisecond, without SA_RESTART: whatever call the process is blocked in is
 * interrupted. From the fifth tick on each runs the deed that lets the call end well. */
static volatile sig_atomic_t ticks;
static void (*deed)(void);

static inline void tick(int signum)
{
	int saved = errno;

	(void)signum;
	ticks++;
	if (ticks > UNIT_TIME_LIMIT * 1000)
		_exit(3);
	if (ticks >= 5)
		deed();
	errno = saved;
}

static inline void start_ticks(void (*f)(void), int flags)
{
	const struct itimerval each_ms = {{0, 1000}, {0, 1000}};
	struct sigaction action = {.sa_handler = tick, .sa_flags = flags};

	sigemptyset(&action.sa_mask);
	deed = f;
	ticks = 0;
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &each_ms, NULL);
}

static inline void stop_ticks(void)
{
	const struct itimerval never = {{0, 0}, {0, 0}};

	setitimer(ITIMER_REAL, &never, NULL);
	signal(SIGALRM, SIG_DFL);
	alarm(UNIT_TIME_LIMIT);
}

static int deed_fd[2];          /* what the deeds work on */

static inline void write_once(void)
{
	if (ticks == 5 && write(deed_fd[1], "x", 1) < 0)
		_exit(2);
}

#endif
