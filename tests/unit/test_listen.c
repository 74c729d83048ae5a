/* test_listen.c - accepting: what a client's socket is like, and what comes of none. */
#include "net/listen.h"

#include <fcntl.h>
#include <sys/resource.h>

#include "unit.h"

/* Listens on a free port of the loopback interface; standard output stays clean. */
static int listening(struct address *self)
{
	int out = dup(STDOUT_FILENO), nothing = open("/dev/null", O_WRONLY);

	*self = (struct address){INADDR_LOOPBACK, 0};
	fflush(stdout);
	dup2(nothing, STDOUT_FILENO);
	int fd = listen_open(self, false);
	dup2(out, STDOUT_FILENO);
	close(out);
	close(nothing);
	return fd;
}

static bool is_ready_to_use(int fd)
{
	return (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0 && (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0;
}

static void test_accept(void)
{
	struct address self, seen, mine;
	int listener = listening(&self);
	struct sockaddr_in sa = address_to_sockaddr(self);
	int client = socket(AF_INET, SOCK_STREAM, 0);

	CHECK(self.port != 0 && is_ready_to_use(listener));
	CHECK(connect(client, (struct sockaddr *)&sa, sizeof sa) == 0);
	int fd = listen_accept(listener, &seen);
	CHECK(fd >= 0 && is_ready_to_use(fd));
	CHECK(address_of_socket(client, &mine) == 0 && address_equal(seen, mine));
	close(fd);
	close(client);
	close(listener);
}

static void test_nobody_waits(void)
{
	struct address self, seen = {1, 2};
	int listener = listening(&self);

	CHECK(listen_accept(listener, &seen) == -1 && errno == EAGAIN);
	CHECK(seen.ip == 1 && seen.port == 2);
	close(listener);
}

/* The client is not lost: it waits. */
static void test_no_descriptor_is_left(void)
{
	struct address self, seen;
	int listener = listening(&self), client = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in sa = address_to_sockaddr(self);
	struct rlimit before, none;

	CHECK(connect(client, (struct sockaddr *)&sa, sizeof sa) == 0);
	getrlimit(RLIMIT_NOFILE, &before);
	none = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
	CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
	CHECK(listen_accept(listener, &seen) == -1 && errno == EMFILE);
	setrlimit(RLIMIT_NOFILE, &before);
	int fd = listen_accept(listener, &seen);
	CHECK(fd >= 0);
	close(fd);
	close(client);
	close(listener);
}

int main(void)
{
	RUN(test_accept);
	RUN(test_nobody_waits);
	RUN(test_no_descriptor_is_left);
	return unit_result();
}
