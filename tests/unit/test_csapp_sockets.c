/* test_csapp_sockets.c - open_clientfd, open_listenfd and names, of csapp.c, on real sockets. */
#include "csapp.h"

#include <sys/syscall.h>

#include "unit.h"

/* ---- Faults on demand ---- */

#ifdef SYS_setsockopt
static bool ipv6_only;          /* as on systems without dual-stack sockets */

/* Stands before the C library's. */
int setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
	if (ipv6_only && level == IPPROTO_IPV6 && name == IPV6_V6ONLY) {
		errno = EINVAL;
		return -1;
	}
	return (int)syscall(SYS_setsockopt, fd, level, name, value, len);
}
#endif

/* ---- Connections ---- */

static void port_of(int fd, char *port, size_t size)
{
	struct sockaddr_storage addr;
	socklen_t len = sizeof addr;

	if (getsockname(fd, (SA *)&addr, &len) < 0
	    || getnameinfo((SA *)&addr, len, NULL, 0, port, (socklen_t)size, NI_NUMERICSERV) != 0)
		abort();
}

static bool close_on_exec(int fd)
{
	return (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0;
}

static void round_trip(int listenfd, const char *host)
{
	char port[16], buf[4] = "";
	int client, server;

	port_of(listenfd, port, sizeof port);
	client = open_clientfd(host, port);
	if (!CHECK(client >= 0))
		return;
	CHECK(close_on_exec(client));
	server = accept(listenfd, NULL, NULL);
	CHECK(rio_writen(client, "ping", 4) == 4);
	CHECK(rio_readn(server, buf, 4) == 4 && memcmp(buf, "ping", 4) == 0);
	CHECK(rio_writen(server, "pong", 4) == 4);
	CHECK(rio_readn(client, buf, 4) == 4 && memcmp(buf, "pong", 4) == 0);
	close(client);
	CHECK(rio_readn(server, buf, 4) == 0);
	close(server);
}

static bool have_ipv6(void)
{
	struct sockaddr_in6 addr = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	int fd = socket(AF_INET6, SOCK_STREAM, 0);
	bool have = fd >= 0 && bind(fd, (SA *)&addr, sizeof addr) == 0;

	if (fd >= 0)
		close(fd);
	return have;
}

static int family_of(int fd)
{
	struct sockaddr_storage addr;
	socklen_t len = sizeof addr;

	return getsockname(fd, (SA *)&addr, &len) < 0 ? -1 : addr.ss_family;
}

static void test_round_trips(void)
{
	int before = unit_open_fds();
	int fd = open_listenfd("0");
	int on = 0;
	socklen_t len = sizeof on;

	if (!CHECK(fd >= 0))
		return;
	CHECK(close_on_exec(fd));
	CHECK(getsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, &len) == 0 && on != 0);
	round_trip(fd, "localhost");
	round_trip(fd, "127.0.0.1");
	if (have_ipv6()) {
		CHECK(family_of(fd) == AF_INET6);
		round_trip(fd, "::1");
	}
	close(fd);
	CHECK(unit_open_fds() == before);
}

static void test_fall_back_to_ipv4(void)
{
#ifdef SYS_setsockopt
	int before = unit_open_fds();
	int fd;

	ipv6_only = true;
	fd = open_listenfd("0");
	ipv6_only = false;
	if (!CHECK(fd >= 0))
		return;
	CHECK(family_of(fd) == AF_INET);
	round_trip(fd, "127.0.0.1");
	round_trip(fd, "localhost");
	close(fd);
	CHECK(unit_open_fds() == before);
#else
	unit_skip("setsockopt can't be made to fail");
#endif
}

static void test_port_in_use(void)
{
	int before, fd = open_listenfd("0");
	char port[16];

	port_of(fd, port, sizeof port);
	before = unit_open_fds();
	CHECK(open_listenfd(port) == -1 && errno == EADDRINUSE);
	CHECK(unit_open_fds() == before);
	close(fd);
	fd = open_listenfd(port); /* and free again at once */
	CHECK(fd >= 0);
	close(fd);
}

static void test_refused(void)
{
	char port[16];
	int fd = unit_bound_port(port);
	int before = unit_open_fds();

	errno = 0;
	CHECK(open_clientfd("127.0.0.1", port) == -1 && errno == ECONNREFUSED);
	errno = 0;
	CHECK(open_clientfd("localhost", port) == -1 && errno == ECONNREFUSED);
	CHECK(unit_open_fds() == before);
	close(fd);
}

static void test_unknown_names(void)
{
	static const char *const bad_port[] = {
		"", " 80", "+80", "-1", "65536", "70000", "99999999999999999999", "80x",
		"no-such-service", NULL
	};
	char endless[300];

	memset(endless, 'a', sizeof endless - 1); /* no host has this name, and no DNS is asked */
	endless[sizeof endless - 1] = '\0';
	CHECK(open_clientfd(endless, "80") == -2);
	for (size_t i = 0; bad_port[i] != NULL; i++) {
		CHECK(open_clientfd("127.0.0.1", bad_port[i]) == -2);
		CHECK(open_listenfd(bad_port[i]) == -2);
	}
	CHECK(open_clientfd("127.0.0.1", NULL) == -2);
	CHECK(open_listenfd(NULL) == -2);
}

static void test_named_port(void)
{
	int fd;

	if (getservbyname("discard", "tcp") == NULL) {
		unit_skip("there is no list of services");
		return;
	}
	fd = open_clientfd("127.0.0.1", "discard");
	CHECK(fd != -2);
	if (fd >= 0)
		close(fd);
}

/* ---- Names ---- */

static void test_addresses(void)
{
	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM};
	struct addrinfo *list;
	struct in_addr addr;
	struct hostent *host;
	char text[64], port[16];

	Getaddrinfo("192.0.2.7", "81", &hints, &list);
	Getnameinfo(list->ai_addr, list->ai_addrlen, text, sizeof text, port, sizeof port,
	            NI_NUMERICHOST | NI_NUMERICSERV);
	CHECK(strcmp(text, "192.0.2.7") == 0 && strcmp(port, "81") == 0);
	Freeaddrinfo(list);

	Inet_pton(AF_INET, "192.0.2.8", &addr);
	CHECK(addr.s_addr == htonl(0xc0000208));
	Inet_ntop(AF_INET, &addr, text, sizeof text);
	CHECK(strcmp(text, "192.0.2.8") == 0);

	host = Gethostbyname("127.0.0.1");
	CHECK(host->h_length == 4 && memcmp(host->h_addr_list[0], "\177\0\0\1", 4) == 0);
}

static int run_all(void)
{
	RUN(test_round_trips);
	RUN(test_fall_back_to_ipv4);
	RUN(test_port_in_use);
	RUN(test_refused);
	RUN(test_unknown_names);
	RUN(test_named_port);
	RUN(test_addresses);
	return unit_result();
}

int main(void)
{
	return unit_in_scratch(run_all);
}
