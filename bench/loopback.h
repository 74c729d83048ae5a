/* loopback.h - what the floors' servers begin with: listening on loopback, and
 * accepting. Included by floor.c and fetch_floor.c, so that the first stays one
 * small file, which is built without the rooms. */
#ifndef LOOPBACK_H
#define LOOPBACK_H

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#define BACKLOG 1024

static void die(const char *what)
{
	perror(what);
	exit(EXIT_FAILURE);
}

static struct sockaddr_in loopback(const char *port)
{
	struct sockaddr_in sa = {.sin_family = AF_INET};

	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	sa.sin_port = htons((uint16_t)atoi(port));
	return sa;
}

/* Prints where it listens; port 0 means any that is free. */
static int listen_on(const char *port)
{
	struct sockaddr_in sa = loopback(port);
	socklen_t length = sizeof sa;
	int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);

	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
	    bind(fd, (struct sockaddr *)&sa, sizeof sa) < 0 || listen(fd, BACKLOG) < 0 ||
	    getsockname(fd, (struct sockaddr *)&sa, &length) < 0)
		die("listen");
	printf("listening on %s:%d\n", inet_ntoa(sa.sin_addr), ntohs(sa.sin_port));
	fflush(stdout);
	return fd;
}

static int accept_one(int listen_fd)
{
	int fd;

	while ((fd = accept(listen_fd, NULL, NULL)) < 0)
		if (errno != EINTR && errno != ECONNABORTED)
			die("accept");
	return fd;
}

#endif
