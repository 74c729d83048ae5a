/* sigpoll.c - ppoll(2) where it exists, pselect(2) elsewhere. */
#define _GNU_SOURCE	/* ppoll, before POSIX.1-2024 */
#include "base/sigpoll.h"

#include <errno.h>
#include <sys/select.h>

#if !defined(__APPLE__) && !defined(PORTABLE)

int sigpoll(struct pollfd polled[], nfds_t count, const struct timespec *timeout,
	    const sigset_t *mask)
{
	return ppoll(polled, count, timeout, mask);
}

#else

int sigpoll(struct pollfd polled[], nfds_t count, const struct timespec *timeout,
	    const sigset_t *mask)
{
	fd_set in, out;
	int end = 0, ready = 0;

	FD_ZERO(&in);
	FD_ZERO(&out);
	for (nfds_t i = 0; i < count; i++) {
		unsigned fd = (unsigned)polled[i].fd;
		if (polled[i].fd < 0)
			continue;
		if (fd >= FD_SETSIZE) {
			errno = EINVAL;
			return -1;
		}
		if (polled[i].events & POLLIN)
			FD_SET(fd, &in);
		if (polled[i].events & POLLOUT)
			FD_SET(fd, &out);
		if (polled[i].fd >= end)
			end = polled[i].fd + 1;
	}
	if (pselect(end, &in, &out, NULL, timeout, mask) < 0)
		return -1;
	for (nfds_t i = 0; i < count; i++) {
		unsigned fd = (unsigned)polled[i].fd;
		polled[i].revents = 0;
		if (polled[i].fd < 0)
			continue;
		if ((polled[i].events & POLLIN) && FD_ISSET(fd, &in))
			polled[i].revents |= POLLIN;
		if ((polled[i].events & POLLOUT) && FD_ISSET(fd, &out))
			polled[i].revents |= POLLOUT;
		ready += polled[i].revents != 0;
	}
	return ready;
}

#endif
