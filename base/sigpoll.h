/* sigpoll.h - waiting for descriptors and signals together. */
#ifndef SIGPOLL_H
#define SIGPOLL_H

#include <poll.h>
#include <signal.h>
#include <time.h>

/* poll(2), with the signal mask `mask` while it waits. A signal that came before the
 * wait ends it, too. After a handler it returns -1 with EINTR; it is never restarted.
 * Where there is no ppoll(2), descriptors must be below FD_SETSIZE (else EINVAL), and
 * only POLLIN and POLLOUT work. */
int sigpoll(struct pollfd polled[], nfds_t count, const struct timespec *timeout,
	    const sigset_t *mask);

#endif
