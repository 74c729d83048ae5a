/* listen.c - listening for connections, and accepting them, for the serving parent
 * and the tracker. */
#define _GNU_SOURCE	/* accept4, before POSIX.1-2024 */
#include "net/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <unistd.h>

#include "base/log.h"
#include "csapp.h"

int listen_open(struct address *a, bool anywhere)
{
	char text[ADDRESS_TEXT_SIZE];
	struct address bound;
	struct sockaddr_in sa = address_to_sockaddr(*a);
	int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

	/* The clients' sockets inherit TCP_NODELAY. Without it the end of a chunk could
	 * wait for a round trip before it is sent. */
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
	    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0)
		fatal("can't make a socket");
	int result = bind(fd, (struct sockaddr *)&sa, sizeof sa);
	if (result < 0 && errno == EADDRNOTAVAIL && anywhere) {
		log_info("%s is no address of this machine: listening on all its addresses",
			 address_text(*a, text));
		sa.sin_addr.s_addr = htonl(INADDR_ANY);
		result = bind(fd, (struct sockaddr *)&sa, sizeof sa);
	}
	if (result < 0 || listen(fd, LISTENQ) < 0 || fcntl(fd, F_SETFL, O_NONBLOCK) < 0 ||
	    fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 || address_of_socket(fd, &bound) < 0)
		fatal("can't listen on %s", address_text(*a, text));
	a->port = bound.port;
	printf("listening on %s\n", address_text(bound, text));
	if (fflush(stdout) != 0)
		fatal("can't write to standard output");
	return fd;
}

#if defined(SOCK_NONBLOCK) && defined(SOCK_CLOEXEC) && !defined(PORTABLE)

static int accept_nonblocking(int listen_fd, struct sockaddr_in *sa, socklen_t *len)
{
	return accept4(listen_fd, (struct sockaddr *)sa, len, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

#else

static int accept_nonblocking(int listen_fd, struct sockaddr_in *sa, socklen_t *len)
{
	int fd = accept(listen_fd, (struct sockaddr *)sa, len);

	if (fd >= 0 && (fcntl(fd, F_SETFL, O_NONBLOCK) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)) {
		int error = errno;
		close(fd);
		errno = error;
		return -1;
	}
	return fd;
}

#endif

int listen_accept(int listen_fd, struct address *client)
{
	struct sockaddr_in sa = {0};
	socklen_t len = sizeof sa;
	int fd = accept_nonblocking(listen_fd, &sa, &len);

	if (fd >= 0)
		*client = address_from_sockaddr(&sa);
	else if (errno == EWOULDBLOCK || errno == EINTR || errno == ECONNABORTED || errno == EPROTO)
		errno = EAGAIN;
	return fd;
}
