/* book_echo.c - the four kinds of echo server that the book teaches, as users of csapp.h.
 *
 * Iterative, one process a client, one select loop, one thread a client: each calls the names
 * of csapp.h with the book's argument types, so this file fails to compile, or warns, when the
 * interface strays. Each server runs in a child, on a port of its own choice that it reports
 * through a pipe, and is a program in all but name: it gets argv and never returns. */
#include "csapp.h"

#include <netinet/tcp.h>

#include "unit.h"

#define TIME_LIMIT 20   /* seconds, for the servers and for the test */
#define CLIENTS 3       /* at the same time */

/* ---- The servers ---- */

static int report_fd;   /* to the test: first the port, then what the server has to tell */

static void report(const void *what, size_t n)
{
	Rio_writen(report_fd, what, n);
}

static int listen_and_report(int argc, char **argv)
{
	struct sockaddr_in6 addr; /* the port is at the same place for IPv4 */
	socklen_t len = sizeof addr;
	int listenfd;

	if (argc != 2) {
		fprintf(stderr, "usage: %s port\n", argv[0]);
		exit(2);
	}
	listenfd = Open_listenfd(argv[1]);
	if (getsockname(listenfd, (SA *)&addr, &len) < 0)
		unix_error("getsockname error");
	report(&addr.sin6_port, sizeof addr.sin6_port);
	return listenfd;
}

/* Two short lines sent one by one must not wait for each other's acknowledgement. */
static void answer_at_once(int connfd)
{
	int on = 1;

	Setsockopt(connfd, IPPROTO_TCP, TCP_NODELAY, (const void *)&on, sizeof(int));
}

/* Accepts a client, which must have an address of this machine. */
static int accept_named(int listenfd)
{
	struct sockaddr_storage clientaddr;
	socklen_t clientlen = sizeof(struct sockaddr_storage);
	char host[MAXLINE], port[MAXLINE];
	int connfd = Accept(listenfd, (SA *)&clientaddr, &clientlen);

	Getnameinfo((SA *)&clientaddr, clientlen, host, MAXLINE, port, MAXLINE,
	            NI_NUMERICHOST | NI_NUMERICSERV);
	if (strstr(host, "127.0.0.1") == NULL && strcmp(host, "::1") != 0)
		app_error("a client from afar");
	answer_at_once(connfd);
	return connfd;
}

/* Sends each line back until the client closes. Result: bytes. */
static long echo(int connfd)
{
	char buf[MAXLINE];
	long total = 0;
	ssize_t n;
	rio_t rio;

	Rio_readinitb(&rio, connfd);
	while ((n = Rio_readlineb(&rio, buf, MAXLINE)) != 0) {
		Rio_writen(connfd, buf, (size_t)n);
		total += n;
	}
	return total;
}

static void iterative_server(int argc, char **argv)
{
	int listenfd = listen_and_report(argc, argv);

	while (1) {
		int connfd = accept_named(listenfd);

		echo(connfd);
		Close(connfd);
	}
}

static void reap(int sig)
{
	int saved_errno = errno;
	pid_t pid;

	(void)sig;
	while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
		if (write(report_fd, &pid, sizeof pid) < 0)
			Sio_error("the test is gone");
	if (pid < 0 && errno != ECHILD)
		Sio_error("waitpid error");
	errno = saved_errno;
}

/* Reports the id of each child that it reaps. */
static void process_server(int argc, char **argv)
{
	int listenfd = listen_and_report(argc, argv);

	Signal(SIGCHLD, reap);
	while (1) {
		int connfd = accept_named(listenfd);

		if (Fork() == 0) {
			Close(listenfd);
			echo(connfd);
			Close(connfd);
			exit(0);
		}
		Close(connfd);
	}
}

typedef struct {
	int maxfd;
	fd_set watched;                 /* the listening socket and all clients */
	fd_set ready;
	rio_t client[FD_SETSIZE];       /* by descriptor */
} pool;

static void add_client(pool *p, int connfd)
{
	if (connfd >= FD_SETSIZE)
		app_error("too many clients");
	Rio_readinitb(&p->client[connfd], connfd);
	FD_SET((unsigned int)connfd, &p->watched);
	if (connfd > p->maxfd)
		p->maxfd = connfd;
}

/* Echoes the line that is there, and all further ones that came with it: select does not see
 * what has gone into the buffer. */
static void serve_client(pool *p, int connfd)
{
	rio_t *rio = &p->client[connfd];
	char buf[MAXLINE];

	do {
		ssize_t n = Rio_readlineb(rio, buf, MAXLINE);

		if (n == 0) {
			Close(connfd);
			FD_CLR((unsigned int)connfd, &p->watched);
			return;
		}
		Rio_writen(connfd, buf, (size_t)n);
	} while (rio->rio_cnt > 0);
}

static void select_server(int argc, char **argv)
{
	static pool clients;
	int listenfd = listen_and_report(argc, argv);

	FD_ZERO(&clients.watched);
	FD_SET((unsigned int)listenfd, &clients.watched);
	clients.maxfd = listenfd;
	while (1) {
		clients.ready = clients.watched;
		Select(clients.maxfd + 1, &clients.ready, NULL, NULL, NULL);
		for (int fd = 0; fd <= clients.maxfd; fd++) {
			if (!FD_ISSET((unsigned int)fd, &clients.ready))
				continue;
			if (fd == listenfd)
				add_client(&clients, accept_named(listenfd));
			else
				serve_client(&clients, fd);
		}
	}
}

static sem_t mutex;             /* guards the next */
static long bytes_echoed;       /* by all threads */

static void init_count(void)
{
	Sem_init(&mutex, 0, 1);
	bytes_echoed = 0;
}

static void *serve_thread(void *vargp)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	int connfd = *((int *)vargp);
	long n;

	Pthread_detach(Pthread_self());
	Free(vargp);
	Pthread_once(&once, init_count);
	n = echo(connfd);
	Close(connfd);
	P(&mutex);
	bytes_echoed += n;
	report(&bytes_echoed, sizeof bytes_echoed);
	V(&mutex);
	return NULL;
}

/* Reports, after each client, the bytes echoed to all so far. */
static void thread_server(int argc, char **argv)
{
	struct sockaddr_storage clientaddr;
	socklen_t clientlen;
	pthread_t tid;
	int listenfd = listen_and_report(argc, argv);

	while (1) {
		int *connfdp = Malloc(sizeof(int));

		clientlen = sizeof(struct sockaddr_storage);
		*connfdp = Accept(listenfd, (SA *)&clientaddr, &clientlen);
		answer_at_once(*connfdp);
		Pthread_create(&tid, NULL, serve_thread, connfdp);
	}
}

/* ---- The client's side ---- */

typedef struct {
	pid_t pid;
	char port[16];
	int told;       /* the other end of report_fd */
} server;

static server start(void (*serve)(int, char **))
{
	char name[] = "echo", any_port[] = "0";
	char *argv[] = {name, any_port, NULL};
	in_port_t port = 0;
	server s;
	int end[2];

	if (pipe(end) < 0)
		unix_error("pipe error");
	s.pid = Fork();
	if (s.pid == 0) {
		Alarm(TIME_LIMIT);
		Close(end[0]);
		report_fd = end[1];
		serve(2, argv);
	}
	Close(end[1]);
	s.told = end[0];
	CHECK(rio_readn(s.told, &port, sizeof port) == (ssize_t)sizeof port);
	sprintf(s.port, "%d", (int)ntohs(port));
	return s;
}

/* Ends the server, which must have lived until now. */
static void stop(const server *s)
{
	int status;

	CHECK(Waitpid(s->pid, &status, WNOHANG) == 0);
	Kill(s->pid, SIGTERM);
	CHECK(Waitpid(s->pid, &status, 0) == s->pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
	Close(s->told);
}

typedef struct {
	int fd;
	rio_t rio;
	long sent;      /* bytes */
} client;

static void hello(client *c, server *s)
{
	char host[] = "localhost";

	c->fd = Open_clientfd(host, s->port);
	Rio_readinitb(&c->rio, c->fd);
	c->sent = 0;
}

/* Sends the text and expects its lines, one after the other, and nothing else. */
static void say(client *c, const char *text)
{
	char back[MAXLINE];
	size_t len = strlen(text), got = 0;

	Rio_writen(c->fd, text, len);
	c->sent += (long)len;
	while (got < len) {
		ssize_t n = Rio_readlineb(&c->rio, back, MAXLINE);

		if (!CHECK(n > 0 && (size_t)n <= len - got))
			return;
		CHECK(memcmp(back, text + got, (size_t)n) == 0);
		got += (size_t)n;
	}
}

/* A last line without a newline, then the end from both sides. */
static void bye(client *c)
{
	char back[MAXLINE];

	Rio_writen(c->fd, "bye", 3);
	c->sent += 3;
	if (shutdown(c->fd, SHUT_WR) < 0)
		unix_error("shutdown error");
	CHECK(Rio_readlineb(&c->rio, back, MAXLINE) == 3 && strcmp(back, "bye") == 0);
	CHECK(Rio_readlineb(&c->rio, back, MAXLINE) == 0);
	Close(c->fd);
}

/* One conversation from the first line to the last. */
static long talk(server *s)
{
	static char wide[MAXLINE + 100];
	client c;

	memset(wide, 'w', sizeof wide - 2); /* more than one readline takes */
	wide[sizeof wide - 2] = '\n';
	hello(&c, s);
	say(&c, "hello, world\n");
	say(&c, "\n");
	say(&c, "two lines\nat once\n");
	say(&c, wide);
	bye(&c);
	return c.sent;
}

/* CLIENTS conversations at once, the last to come served first: a server that deals with one
 * client after the other would hang here. */
static long talk_at_once(server *s)
{
	static client c[CLIENTS];
	long sent = 0;

	for (int i = 0; i < CLIENTS; i++)
		hello(&c[i], s);
	for (int round = 0; round < 3; round++)
		for (int i = CLIENTS - 1; i >= 0; i--) {
			char text[64];

			sprintf(text, "client %d\nround %d\n", i, round);
			say(&c[i], text);
		}
	for (int i = 0; i < CLIENTS; i++) {
		bye(&c[i]);
		sent += c[i].sent;
	}
	return sent;
}

/* ---- The tests ---- */

static void test_iterative(void)
{
	server s = start(iterative_server);

	talk(&s);
	talk(&s);
	stop(&s);
}

static void test_processes(void)
{
	server s = start(process_server);
	pid_t child[CLIENTS + 1];

	talk_at_once(&s);
	talk(&s);
	CHECK(rio_readn(s.told, child, sizeof child) == (ssize_t)sizeof child);
	for (int i = 0; i < CLIENTS + 1; i++) { /* all of them reaped, and each once */
		CHECK(child[i] > 0 && child[i] != s.pid);
		for (int k = 0; k < i; k++)
			CHECK(child[i] != child[k]);
	}
	stop(&s);
}

static void test_select(void)
{
	server s = start(select_server);

	talk_at_once(&s);
	talk(&s);
	stop(&s);
}

static void test_threads(void)
{
	server s = start(thread_server);
	long sent = talk_at_once(&s) + talk(&s);
	long total[CLIENTS + 1];

	CHECK(rio_readn(s.told, total, sizeof total) == (ssize_t)sizeof total);
	CHECK(total[CLIENTS] == sent);
	stop(&s);
}

int main(void)
{
	Alarm(TIME_LIMIT);
	RUN(test_iterative);
	RUN(test_processes);
	RUN(test_select);
	RUN(test_threads);
	return unit_result();
}
