/* unit.h - the smallest frame for unit tests in C, and what several of them need.
 *
 * A test is a function that CHECKs. RUN names it and prints one line for it,
 * "ok NAME" or "FAIL NAME", to standard output; each CHECK that failed has
 * said so before, on standard error. A test that can't be done here calls
 * unit_skip() and returns; its line is "skipped NAME: WHY". main returns unit_result(), or leaves
 * that to unit_in_scratch(). With UNIT_STOP in the environment the first test that fails is
 * the last. A CHECK in a child is lost: its exit status has
 * to tell. What fails without being tested aborts the program. */
#ifndef UNIT_H
#define UNIT_H

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sha256.h"

#define LENGTH(array) (sizeof (array) / sizeof (array)[0])

#define UNIT_TIME_LIMIT 180	/* seconds, for each process that unit_fork() makes */
#define UNIT_PORT_SIZE 8	/* a port's number as text */
#define UNIT_PATH_SIZE 64	/* more than any path in the scratch directory needs */

/* ---- Checks and tests ---- */

static int unit_failed_checks;
static int unit_failed_tests;
static const char *unit_why_skipped;	/* NULL: it isn't */

static inline bool unit_check(bool ok, const char *what, const char *file, int line)
{
	if (!ok) {
		fprintf(stderr, "%s:%d: not true: %s\n", file, line, what);
		unit_failed_checks++;
	}
	return ok;
}

static inline void unit_skip(const char *why)
{
	unit_why_skipped = why;
}

static inline void unit_run(void (*test)(void), const char *name)
{
	unit_failed_checks = 0;
	unit_why_skipped = NULL;
	test();
	if (unit_failed_checks > 0)
		unit_failed_tests++;
	if (unit_failed_checks == 0 && unit_why_skipped != NULL)
		printf("skipped %s: %s\n", name, unit_why_skipped);
	else
		printf("%s %s\n", unit_failed_checks > 0 ? "FAIL" : "ok", name);
	fflush(stdout);
	if (unit_failed_checks > 0 && getenv("UNIT_STOP") != NULL)
		exit(EXIT_FAILURE);
}

static inline int unit_result(void)
{
	return unit_failed_tests > 0;
}

#define CHECK(cond) unit_check((cond), #cond, __FILE__, __LINE__)
#define RUN(test) unit_run((test), #test)

/* ---- Children ---- */

/* Forks. SIGALRM ends a child that takes too long. */
static inline pid_t unit_fork(void)
{
	pid_t pid = fork();

	if (pid < 0)
		abort();
	if (pid == 0)
		alarm(UNIT_TIME_LIMIT);
	return pid;
}

/* Waits for a child. Result: its exit status, or minus the signal that killed it. */
static inline int unit_wait(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			abort();
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* Runs act in a child, whose exit status is what act returns. Result: as of unit_wait(). */
static inline int unit_in_child(int (*act)(void))
{
	pid_t pid = unit_fork();

	if (pid == 0)
		_exit(act());
	return unit_wait(pid);
}

/* ---- Files ---- */

static char unit_scratch[] = "/tmp/cascade-unit.XXXXXX";	/* a directory, within unit_in_scratch() */

/* The path of that file in the scratch directory. Result: path. */
static inline char *unit_path(char path[UNIT_PATH_SIZE], const char *name)
{
	if (snprintf(path, UNIT_PATH_SIZE, "%s/%s", unit_scratch, name) >= UNIT_PATH_SIZE)
		abort();
	return path;
}

/* Runs run_all, which returns unit_result(), in a child: so the scratch directory and all
 * files in it go even if the tests are killed. Result: for main to return. */
static inline int unit_in_scratch(int (*run_all)(void))
{
	struct dirent *entry;
	pid_t pid;
	int status;
	DIR *dir;

	if (mkdtemp(unit_scratch) == NULL)
		abort();
	pid = unit_fork();
	if (pid == 0)
		exit(run_all());
	signal(SIGTERM, SIG_IGN);	/* sent to the process group, it ends the child */
	status = unit_wait(pid);
	if (status < 0)
		fprintf(stderr, "killed by signal %d\n", -status);
	if ((dir = opendir(unit_scratch)) != NULL) {
		while ((entry = readdir(dir)) != NULL)
			if (unlinkat(dirfd(dir), entry->d_name, 0) < 0)
				unlinkat(dirfd(dir), entry->d_name, AT_REMOVEDIR);
		closedir(dir);
		rmdir(unit_scratch);
	}
	return status != 0;
}

static inline void unit_write_file(const char *path, const void *bytes, size_t size)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);

	if (fd < 0 || write(fd, bytes, size) != (ssize_t)size || close(fd) < 0)
		abort();
}

static inline void unit_hash(const uint8_t *data, size_t len, uint8_t hash[SHA256_HASH_SIZE])
{
	SHA256_CTX ctx;

	sha256_init(&ctx);
	sha256_update(&ctx, data, len);
	sha256_final(&ctx, hash);
}

/* ---- Descriptors ---- */

/* How many are open: as many before as after if nothing leaked. */
static inline int unit_open_fds(void)
{
	int count = 0;

	for (int fd = 0; fd < 256; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

static inline void unit_pipe(int end[2])
{
	if (pipe(end) < 0)
		abort();
}

/* Reads size bytes. Result: how many came; fewer only at the end of file or after an error. */
static inline size_t unit_read(int fd, void *to, size_t size)
{
	size_t got = 0;

	while (got < size) {
		ssize_t n = read(fd, (char *)to + got, size - got);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		got += (size_t)n;
	}
	return got;
}

/* A TCP socket on a free port of the loopback interface, self. Until somebody listens there,
 * who connects is refused. */
static inline int unit_bound_socket(struct sockaddr_in *self)
{
	socklen_t size = sizeof *self;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	*self = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	if (fd < 0 || bind(fd, (struct sockaddr *)self, sizeof *self) < 0 ||
	    getsockname(fd, (struct sockaddr *)self, &size) < 0)
		abort();
	return fd;
}

/* The same; its port is told as text. */
static inline int unit_bound_port(char port[UNIT_PORT_SIZE])
{
	struct sockaddr_in self;
	int fd = unit_bound_socket(&self);

	snprintf(port, UNIT_PORT_SIZE, "%u", (unsigned)ntohs(self.sin_port));
	return fd;
}

#endif
