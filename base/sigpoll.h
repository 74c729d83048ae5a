/* sigpoll.h - waiting for descriptors and signals together. */
#ifndef SIGPOLL_H
#define SIGPOLL_H

#include <poll.h>
#include <signal.h>
#include <time.h>

/* poll(2), with the signal mask `mask` while it waits: a signal that comes before
 * the wait ends it too. Never restarted after a handler: -1 with EINTR then.
 * Where there is no ppoll(2), the descriptors must be below FD_SETSIZE (EINVAL),
 * and of the events only POLLIN and POLLOUT are known. */
int sigpoll(struct pollfd polled[], nfds_t count, const struct timespec *timeout,
	    const sigset_t *mask);

#endif
