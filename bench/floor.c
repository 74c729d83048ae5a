/* floor.c - what no server of its kind can beat: the least that the system
 * asks for each answer, with nothing known of files, requests or bad clients.
 * The serving parent's speed is measured against it.
 *
 *   floor fork PORT SIZE        accept, fork; the child reads 64 bytes, answers
 *                               with 9 + SIZE bytes, and exits; SIGCHLD reaps
 *   floor keep PORT SIZE        the same, but the child goes on until end of file
 *   floor sendfile PORT FILE    accept, and send FILE over and over, one client
 *                               after the other
 *
 * It listens on loopback and prints where; port 0 means any that is free. */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "loopback.h"

#define REQUEST_SIZE 64
#define HEADER_SIZE 9
#define SIZE_MAX_ANSWERED ((size_t)1 << 20)

static unsigned char answer[HEADER_SIZE + SIZE_MAX_ANSWERED];	/* status 0, length, zeros */
static size_t answer_size;

static void reap(int sig)
{
	int saved = errno;

	(void)sig;
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	errno = saved;
}

/* False at end of file or at an error. */
static int answer_one(int fd)
{
	unsigned char request[REQUEST_SIZE];
	size_t sent = 0;
	ssize_t n;

	if (recv(fd, request, sizeof request, MSG_WAITALL) != REQUEST_SIZE)
		return 0;
	for (; sent < answer_size; sent += (size_t)n)
		if ((n = send(fd, answer + sent, answer_size - sent, MSG_NOSIGNAL)) < 0)
			return 0;
	return 1;
}

static void serve_by_forking(int listen_fd, int keep)
{
	struct sigaction action = {.sa_handler = reap, .sa_flags = SA_RESTART | SA_NOCLDSTOP};

	sigaction(SIGCHLD, &action, NULL);
	for (;;) {
		int fd = accept_one(listen_fd);
		switch (fork()) {
		case -1:
			perror("fork");
			break;
		case 0:
			close(listen_fd);
			while (answer_one(fd) && keep)
				;
			_exit(EXIT_SUCCESS);
		}
		close(fd);
	}
}

int main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[1], "sendfile") == 0)
		send_file(listen_on(argv[2]), argv[3], true);
	if (argc != 4 || (strcmp(argv[1], "fork") != 0 && strcmp(argv[1], "keep") != 0) ||
	    strtoul(argv[3], NULL, 10) > SIZE_MAX_ANSWERED) {
		fputs("usage: floor fork|keep PORT SIZE\n       floor sendfile PORT FILE\n", stderr);
		return 2;
	}
	uint64_t size = strtoul(argv[3], NULL, 10);
	for (int i = 0; i < 8; i++)
		answer[1 + i] = (unsigned char)(size >> (56 - 8 * i));
	answer_size = HEADER_SIZE + (size_t)size;
	serve_by_forking(listen_on(argv[2]), argv[1][0] == 'k');
}
