/* loopback.h - what the floors' servers share: listening on loopback, accepting,
 * and sending a file. Included by floor.c and fetch_floor.c, so that the first stays one
 * small file, which is built without the modules. */
#ifndef LOOPBACK_H
#define LOOPBACK_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

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

/* Sends the file to one client after the other: once, or over and over until the
 * client goes away. Never returns. */
static void send_file(int listen_fd, const char *path, bool over_and_over)
{
	int file = open(path, O_RDONLY);
	struct stat st;

	if (file < 0 || fstat(file, &st) < 0)
		die(path);
	signal(SIGPIPE, SIG_IGN);
	for (;;) {
		int fd = accept_one(listen_fd);
		off_t at = 0;
		while (at < st.st_size && sendfile(fd, file, &at, (size_t)(st.st_size - at)) > 0)
			if (over_and_over && at == st.st_size)
				at = 0;
		close(fd);
	}
}

#endif
