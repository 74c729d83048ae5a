/* csapp.c - robust I/O, sockets and wrappers around system calls.
 *
 * csapp.h describes each function. All programs link this file, and the linker leaves out
 * what a program doesn't use. It keeps no state of its own. */
#include "csapp.h"

#include <limits.h>
#include <poll.h>
#include <stdbool.h>

/* ---- Errors ---- */

enum { PART_MAX = 1000 }; /* three parts fit in PIPE_BUF of Linux, so lines do not mix */

/* Prints the parts that are not NULL, joined by ": ", as one line. sio_error needs it to be
 * async-signal-safe, so no stdio. */
static void complain(const char *what, const char *object, const char *why)
{
	const char *const part[] = {what, object, why};
	char line[3 * (PART_MAX + 2) + 1];
	size_t n = 0;

	for (size_t i = 0; i < 3; i++) {
		if (part[i] == NULL)
			continue;
		if (n > 0) {
			line[n++] = ':';
			line[n++] = ' ';
		}
		for (size_t k = 0; k < PART_MAX && part[i][k] != '\0'; k++) {
			unsigned char c = (unsigned char)part[i][k];

			line[n++] = c < ' ' || c == 0x7f ? ' ' : (char)c;
		}
	}
	while (n > 0 && line[n - 1] == ' ') /* a message that came with its newline */
		n--;
	line[n++] = '\n';
	rio_writen(STDERR_FILENO, line, n);
}

static _Noreturn void die(const char *what, const char *object, const char *why)
{
	complain(what, object, why);
	exit(1);
}

static const char *gai_reason(int code)
{
	return code == EAI_SYSTEM ? strerror(errno) : gai_strerror(code);
}

void unix_error(const char *msg) { die(msg, NULL, strerror(errno)); }
void posix_error(int code, const char *msg) { die(msg, NULL, strerror(code)); }
void gai_error(int code, const char *msg) { die(msg, NULL, gai_reason(code)); }
void app_error(const char *msg) { die(msg, NULL, NULL); }
void dns_error(const char *msg) { die(msg, NULL, hstrerror(h_errno)); }

/* Most wrappers are a call and one of these: the result if it is good, the end if not. The
 * object, a path for example, is named where there is one. */

static int must(int result, const char *msg)
{
	if (result < 0)
		unix_error(msg);
	return result;
}

static ssize_t must_count(ssize_t result, const char *msg)
{
	if (result < 0)
		unix_error(msg);
	return result;
}

static void *must_have(void *p, const char *msg, const char *object)
{
	if (p == NULL)
		die(msg, object, strerror(errno));
	return p;
}

static void *must_allocate(void *p, size_t size, const char *msg)
{
	if (p == NULL && size > 0)
		unix_error(msg);
	return p;
}

static void must_be_0(int code, const char *msg)
{
	if (code != 0)
		posix_error(code, msg);
}

/* For calls that a signal may interrupt; they stand in a loop. */
static void must_be_eintr(const char *msg, const char *object)
{
	if (errno != EINTR)
		die(msg, object, strerror(errno));
}

/* ---- Processes ---- */

pid_t Fork(void) { return must(fork(), "Fork error"); }

void Execve(const char *filename, char *const argv[], char *const envp[])
{
	execve(filename, argv, envp);
	die("Execve error", filename, strerror(errno));
}

pid_t Wait(int *status)
{
	pid_t child;

	while ((child = wait(status)) < 0)
		must_be_eintr("Wait error", NULL);
	return child;
}

pid_t Waitpid(pid_t pid, int *status, int options)
{
	pid_t child;

	while ((child = waitpid(pid, status, options)) < 0)
		must_be_eintr("Waitpid error", NULL);
	return child;
}

void Kill(pid_t pid, int signum) { must(kill(pid, signum), "Kill error"); }
void Pause(void) { pause(); }
unsigned int Sleep(unsigned int secs) { return sleep(secs); }
unsigned int Alarm(unsigned int secs) { return alarm(secs); }
void Setpgid(pid_t pid, pid_t pgid) { must(setpgid(pid, pgid), "Setpgid error"); }
pid_t Getpgrp(void) { return getpgrp(); }

/* ---- Signals ---- */

handler_t *Signal(int signum, handler_t *handler)
{
	struct sigaction new = {.sa_handler = handler, .sa_flags = SA_RESTART}, old;

	sigemptyset(&new.sa_mask);
	must(sigaction(signum, &new, &old), "Signal error");
	return old.sa_handler;
}

void Sigprocmask(int how, const sigset_t *set, sigset_t *oldset)
{
	must(sigprocmask(how, set, oldset), "Sigprocmask error");
}

void Sigemptyset(sigset_t *set) { must(sigemptyset(set), "Sigemptyset error"); }
void Sigfillset(sigset_t *set) { must(sigfillset(set), "Sigfillset error"); }
void Sigaddset(sigset_t *set, int signum) { must(sigaddset(set, signum), "Sigaddset error"); }
void Sigdelset(sigset_t *set, int signum) { must(sigdelset(set, signum), "Sigdelset error"); }

int Sigismember(const sigset_t *set, int signum)
{
	return must(sigismember(set, signum), "Sigismember error");
}

int Sigsuspend(const sigset_t *set)
{
	int rc = sigsuspend(set); /* always -1; EINTR is how it succeeds */

	if (errno != EINTR)
		unix_error("Sigsuspend error");
	return rc;
}

/* ---- Output from signal handlers ---- */

ssize_t sio_puts(const char *s)
{
	return rio_writen(STDOUT_FILENO, s, strlen(s));
}

ssize_t sio_putl(long v)
{
	char text[sizeof v * CHAR_BIT / 3 + 2]; /* more than enough: octal digits and a sign */
	char *p = text + sizeof text;
	unsigned long rest = (unsigned long)v;

	if (v < 0)
		rest = 0 - rest; /* unsigned, as -LONG_MIN is no long */
	do
		*--p = (char)('0' + rest % 10);
	while ((rest /= 10) > 0);
	if (v < 0)
		*--p = '-';
	return rio_writen(STDOUT_FILENO, p, (size_t)(text + sizeof text - p));
}

void sio_error(const char *s)
{
	complain(s, NULL, NULL);
	_exit(1); /* exit runs atexit functions and flushes stdio: unsafe in a handler */
}

static ssize_t must_print(ssize_t n, const char *msg)
{
	if (n < 0)
		sio_error(msg);
	return n;
}

ssize_t Sio_puts(const char *s) { return must_print(sio_puts(s), "Sio_puts error"); }
ssize_t Sio_putl(long v) { return must_print(sio_putl(v), "Sio_putl error"); }
void Sio_error(const char *s) { sio_error(s); }

/* ---- Unix I/O ---- */

int Open(const char *pathname, int flags, mode_t mode)
{
	int fd;

	while ((fd = open(pathname, flags, mode)) < 0)
		must_be_eintr("Open error", pathname);
	return fd;
}

ssize_t Read(int fd, void *buf, size_t count)
{
	ssize_t n;

	while ((n = read(fd, buf, count)) < 0)
		must_be_eintr("Read error", NULL);
	return n;
}

ssize_t Write(int fd, const void *buf, size_t count)
{
	ssize_t n;

	while ((n = write(fd, buf, count)) < 0)
		must_be_eintr("Write error", NULL);
	return n;
}

off_t Lseek(int fd, off_t offset, int whence)
{
	off_t at = lseek(fd, offset, whence);

	if (at < 0)
		unix_error("Lseek error");
	return at;
}

void Close(int fd)
{
	/* After EINTR the descriptor is gone already; closing again could hit another's. */
	if (close(fd) < 0 && errno != EINTR)
		unix_error("Close error");
}

int Dup2(int oldfd, int newfd)
{
	int fd;

	while ((fd = dup2(oldfd, newfd)) < 0)
		must_be_eintr("Dup2 error", NULL);
	return fd;
}

void Stat(const char *pathname, struct stat *st)
{
	if (stat(pathname, st) < 0)
		die("Stat error", pathname, strerror(errno));
}

void Fstat(int fd, struct stat *st) { must(fstat(fd, st), "Fstat error"); }

int Select(int nfds, fd_set *readfds, fd_set *writefds, fd_set *exceptfds,
           struct timeval *timeout)
{
	int ready;

	while ((ready = select(nfds, readfds, writefds, exceptfds, timeout)) < 0)
		must_be_eintr("Select error", NULL); /* the sets are as they were */
	return ready;
}

/* ---- Directories ---- */

DIR *Opendir(const char *name) { return must_have(opendir(name), "Opendir error", name); }

struct dirent *Readdir(DIR *dirp)
{
	struct dirent *entry;

	errno = 0; /* the one way to tell a failure from the end */
	entry = readdir(dirp);
	if (entry == NULL && errno != 0)
		unix_error("Readdir error");
	return entry;
}

int Closedir(DIR *dirp) { return must(closedir(dirp), "Closedir error"); }

/* ---- Memory ---- */

void *Mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset)
{
	void *p = mmap(addr, length, prot, flags, fd, offset);

	if (p == MAP_FAILED)
		unix_error("Mmap error");
	return p;
}

void Munmap(void *addr, size_t length) { must(munmap(addr, length), "Munmap error"); }
void *Malloc(size_t size) { return must_allocate(malloc(size), size, "Malloc error"); }

void *Realloc(void *ptr, size_t size)
{
	return must_allocate(realloc(ptr, size), size, "Realloc error");
}

void *Calloc(size_t nmemb, size_t size)
{
	return must_allocate(calloc(nmemb, size), nmemb > 0 ? size : 0, "Calloc error");
}

void Free(void *ptr) { free(ptr); }

/* ---- Standard I/O ---- */

FILE *Fopen(const char *pathname, const char *mode)
{
	return must_have(fopen(pathname, mode), "Fopen error", pathname);
}

FILE *Fdopen(int fd, const char *mode)
{
	return must_have(fdopen(fd, mode), "Fdopen error", NULL);
}

void Fclose(FILE *stream) { must(fclose(stream), "Fclose error"); }
void Fputs(const char *s, FILE *stream) { must(fputs(s, stream), "Fputs error"); }

char *Fgets(char *buf, int size, FILE *stream)
{
	char *line = fgets(buf, size, stream);

	if (line == NULL && ferror(stream))
		unix_error("Fgets error");
	return line;
}

size_t Fread(void *buf, size_t size, size_t nmemb, FILE *stream)
{
	size_t n = fread(buf, size, nmemb, stream);

	if (n < nmemb && ferror(stream))
		unix_error("Fread error");
	return n;
}

void Fwrite(const void *buf, size_t size, size_t nmemb, FILE *stream)
{
	if (fwrite(buf, size, nmemb, stream) < nmemb && size > 0)
		unix_error("Fwrite error");
}

/* ---- Sockets ---- */

/* An interrupted connect goes on in the background. Calling again joins it on Linux; elsewhere
 * it says EALREADY until the matter is settled, and EISCONN if it went well. */
static int connect_to_the_end(int fd, const struct sockaddr *addr, socklen_t addrlen)
{
	bool interrupted = false;

	while (connect(fd, addr, addrlen) < 0) {
		if (errno == EISCONN && interrupted)
			return 0;
		if (errno == EALREADY && interrupted) {
			struct pollfd settled = {.fd = fd, .events = POLLOUT};

			poll(&settled, 1, -1);
		} else if (errno != EINTR) {
			return -1;
		}
		interrupted = true;
	}
	return 0;
}

int Socket(int domain, int type, int protocol)
{
	return must(socket(domain, type, protocol), "Socket error");
}

void Setsockopt(int fd, int level, int optname, const void *optval, socklen_t optlen)
{
	must(setsockopt(fd, level, optname, optval, optlen), "Setsockopt error");
}

void Bind(int fd, const struct sockaddr *addr, socklen_t addrlen)
{
	must(bind(fd, addr, addrlen), "Bind error");
}

void Listen(int fd, int backlog) { must(listen(fd, backlog), "Listen error"); }

void Connect(int fd, const struct sockaddr *addr, socklen_t addrlen)
{
	must(connect_to_the_end(fd, addr, addrlen), "Connect error");
}

int Accept(int fd, struct sockaddr *addr, socklen_t *addrlen)
{
	int connfd;

	while ((connfd = accept(fd, addr, addrlen)) < 0)
		if (errno != EINTR && errno != ECONNABORTED)
			unix_error("Accept error");
	return connfd;
}

/* ---- Names and addresses ---- */

void Getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                 struct addrinfo **list)
{
	int code = getaddrinfo(host, service, hints, list);

	if (code != 0)
		die("Getaddrinfo error", host != NULL ? host : service, gai_reason(code));
}

void Freeaddrinfo(struct addrinfo *list) { freeaddrinfo(list); }

void Getnameinfo(const struct sockaddr *addr, socklen_t addrlen, char *host, socklen_t hostlen,
                 char *service, socklen_t servicelen, int flags)
{
	int code = getnameinfo(addr, addrlen, host, hostlen, service, servicelen, flags);

	if (code != 0)
		gai_error(code, "Getnameinfo error");
}

void Inet_ntop(int family, const void *addr, char *text, socklen_t textlen)
{
	if (inet_ntop(family, addr, text, textlen) == NULL)
		unix_error("Inet_ntop error");
}

void Inet_pton(int family, const char *text, void *addr)
{
	if (must(inet_pton(family, text, addr), "Inet_pton error") == 0)
		die("Inet_pton error", text, "not an address");
}

struct hostent *Gethostbyname(const char *name)
{
	struct hostent *host = gethostbyname(name);

	if (host == NULL)
		dns_error("Gethostbyname error");
	return host;
}

struct hostent *Gethostbyaddr(const void *addr, socklen_t addrlen, int family)
{
	struct hostent *host = gethostbyaddr(addr, addrlen, family);

	if (host == NULL)
		dns_error("Gethostbyaddr error");
	return host;
}

/* ---- Threads and semaphores ---- */

void Pthread_create(pthread_t *tid, const pthread_attr_t *attr, void *(*routine)(void *),
                    void *arg)
{
	must_be_0(pthread_create(tid, attr, routine, arg), "Pthread_create error");
}

void Pthread_join(pthread_t tid, void **result)
{
	must_be_0(pthread_join(tid, result), "Pthread_join error");
}

void Pthread_cancel(pthread_t tid) { must_be_0(pthread_cancel(tid), "Pthread_cancel error"); }
void Pthread_detach(pthread_t tid) { must_be_0(pthread_detach(tid), "Pthread_detach error"); }
void Pthread_exit(void *result) { pthread_exit(result); }
pthread_t Pthread_self(void) { return pthread_self(); }

void Pthread_once(pthread_once_t *once, void (*init)(void))
{
	must_be_0(pthread_once(once, init), "Pthread_once error");
}

void Sem_init(sem_t *sem, int pshared, unsigned int value)
{
	must(sem_init(sem, pshared, value), "Sem_init error");
}

void P(sem_t *sem)
{
	while (sem_wait(sem) < 0)
		must_be_eintr("P error", NULL);
}

void V(sem_t *sem) { must(sem_post(sem), "V error"); }

/* ---- rio ---- */

/* A count above SSIZE_MAX could not be returned. */
static bool too_many(size_t n)
{
	if (n <= SSIZE_MAX)
		return false;
	errno = EINVAL;
	return true;
}

ssize_t rio_readn(int fd, void *buf, size_t n)
{
	char *to = buf;
	size_t done = 0;

	if (too_many(n))
		return -1;
	while (done < n) {
		ssize_t got = read(fd, to + done, n - done);

		if (got == 0)
			break;
		if (got > 0)
			done += (size_t)got;
		else if (errno != EINTR)
			return -1;
	}
	return (ssize_t)done;
}

ssize_t rio_writen(int fd, const void *buf, size_t n)
{
	const char *from = buf;
	size_t done = 0;

	if (too_many(n))
		return -1;
	while (done < n) {
		ssize_t put = write(fd, from + done, n - done);

		if (put == 0) { /* sets no errno, and trying again could go on for ever */
			errno = EIO;
			return -1;
		}
		if (put > 0)
			done += (size_t)put;
		else if (errno != EINTR)
			return -1;
	}
	return (ssize_t)done;
}

void rio_readinitb(rio_t *rp, int fd)
{
	rp->rio_fd = fd;
	rp->rio_cnt = 0;
	rp->rio_bufptr = rp->rio_buf;
}

/* Fills the buffer if it is empty. Result: how many of want bytes can be taken from it at
 * once, 0 at end of file, -1. */
static ssize_t fill(rio_t *rp, size_t want)
{
	while (rp->rio_cnt == 0) {
		ssize_t got = read(rp->rio_fd, rp->rio_buf, sizeof rp->rio_buf);

		if (got == 0)
			return 0;
		if (got > 0) {
			rp->rio_cnt = (int)got;
			rp->rio_bufptr = rp->rio_buf;
		} else if (errno != EINTR) {
			return -1;
		}
	}
	return want < (size_t)rp->rio_cnt ? (ssize_t)want : rp->rio_cnt;
}

/* Moves n bytes, of those that fill found, out of the buffer. */
static void take(rio_t *rp, char *to, size_t n)
{
	memcpy(to, rp->rio_bufptr, n);
	rp->rio_bufptr += n;
	rp->rio_cnt -= (int)n;
}

ssize_t rio_readnb(rio_t *rp, void *buf, size_t n)
{
	char *to = buf;
	size_t done = 0;

	if (too_many(n))
		return -1;
	while (done < n) {
		ssize_t part = fill(rp, n - done);

		if (part < 0)
			return -1;
		if (part == 0)
			break;
		take(rp, to + done, (size_t)part);
		done += (size_t)part;
	}
	return (ssize_t)done;
}

ssize_t rio_readlineb(rio_t *rp, void *buf, size_t maxlen)
{
	char *to = buf;
	size_t done = 0;
	const char *newline = NULL;

	if (maxlen == 0) {
		errno = EINVAL;
		return -1;
	}
	while (newline == NULL && done < maxlen - 1) {
		ssize_t part = fill(rp, maxlen - 1 - done);

		if (part < 0)
			return -1;
		if (part == 0)
			break;
		newline = memchr(rp->rio_bufptr, '\n', (size_t)part);
		if (newline != NULL)
			part = newline - rp->rio_bufptr + 1;
		take(rp, to + done, (size_t)part);
		done += (size_t)part;
	}
	to[done] = '\0';
	return (ssize_t)done;
}

ssize_t Rio_readn(int fd, void *buf, size_t n)
{
	return must_count(rio_readn(fd, buf, n), "Rio_readn error");
}

void Rio_writen(int fd, const void *buf, size_t n)
{
	must_count(rio_writen(fd, buf, n), "Rio_writen error");
}

void Rio_readinitb(rio_t *rp, int fd) { rio_readinitb(rp, fd); }

ssize_t Rio_readnb(rio_t *rp, void *buf, size_t n)
{
	return must_count(rio_readnb(rp, buf, n), "Rio_readnb error");
}

ssize_t Rio_readlineb(rio_t *rp, void *buf, size_t maxlen)
{
	return must_count(rio_readlineb(rp, buf, maxlen), "Rio_readlineb error");
}

/* ---- Opening connections ---- */

/* getaddrinfo for TCP. It may take "", " 80" and "+80" for numbers and may cut 70000 down to
 * 16 bits, so such a port is refused before. */
static int resolve(const char *host, const char *port, int flags, struct addrinfo **list)
{
	struct addrinfo hints = {
		.ai_flags = flags, .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM
	};

	if (port == NULL || !isalnum((unsigned char)port[0]))
		return EAI_SERVICE;
	if (port[strspn(port, "0123456789")] == '\0' && strtoul(port, NULL, 10) > 65535)
		return EAI_SERVICE;
	return getaddrinfo(host, port, &hints, list);
}

/* A socket for ai, close-on-exec so that no program run later holds the connection open. */
static int open_socket(const struct addrinfo *ai)
{
#ifdef SOCK_CLOEXEC
	return socket(ai->ai_family, ai->ai_socktype | SOCK_CLOEXEC, ai->ai_protocol);
#else
	int fd = socket(ai->ai_family, ai->ai_socktype, ai->ai_protocol);

	if (fd >= 0)
		fcntl(fd, F_SETFD, FD_CLOEXEC);
	return fd;
#endif
}

/* Closes fd on a path of failure: -1, with errno as it was. */
static int give_up(int fd)
{
	int saved = errno;

	close(fd);
	errno = saved;
	return -1;
}

static int connect_socket(const struct addrinfo *ai)
{
	int fd = open_socket(ai);

	if (fd >= 0 && connect_to_the_end(fd, ai->ai_addr, ai->ai_addrlen) < 0)
		return give_up(fd);
	return fd;
}

static int listen_socket(const struct addrinfo *ai)
{
	const int on = 1, off = 0;
	int fd = open_socket(ai);

	if (fd < 0)
		return -1;
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0)
		return give_up(fd);
	if (ai->ai_family == AF_INET6 /* let IPv4 in as well, whatever the system's default */
	    && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) < 0)
		return give_up(fd);
	if (bind(fd, ai->ai_addr, ai->ai_addrlen) < 0 || listen(fd, LISTENQ) < 0)
		return give_up(fd);
	return fd;
}

/* open_clientfd, but *gai is getaddrinfo's code, for a caller that prints. */
static int dial(const char *host, const char *port, int *gai)
{
	struct addrinfo *list;
	int fd = -1;
	int first_errno = 0;

	*gai = resolve(host, port, 0, &list);
	if (*gai != 0)
		return -2;
	for (struct addrinfo *ai = list; ai != NULL && fd < 0; ai = ai->ai_next) {
		fd = connect_socket(ai);
		if (fd < 0 && first_errno == 0)
			first_errno = errno;
	}
	freeaddrinfo(list);
	if (fd < 0)
		errno = first_errno;
	return fd;
}

/* open_listenfd, likewise. */
static int listen_at(const char *port, int *gai)
{
	static const int preferred[] = {AF_INET6, AF_INET};
	struct addrinfo *list;
	int fd = -1;
	int last_errno = 0; /* the first may only say that there is no IPv6 here */

	*gai = resolve(NULL, port, AI_PASSIVE, &list);
	if (*gai != 0)
		return -2;
	for (size_t i = 0; i < 2 && fd < 0; i++)
		for (struct addrinfo *ai = list; ai != NULL && fd < 0; ai = ai->ai_next)
			if (ai->ai_family == preferred[i]) {
				fd = listen_socket(ai);
				last_errno = errno;
			}
	freeaddrinfo(list);
	if (fd < 0)
		errno = last_errno;
	return fd;
}

int open_clientfd(const char *host, const char *port)
{
	int gai;

	return dial(host, port, &gai);
}

int open_listenfd(const char *port)
{
	int gai;

	return listen_at(port, &gai);
}

int Open_clientfd(const char *host, const char *port)
{
	int gai;
	int fd = dial(host, port, &gai);

	if (fd < 0) {
		char where[PART_MAX];

		snprintf(where, sizeof where, "%s port %s", host != NULL ? host : "localhost",
		         port != NULL ? port : "(none)");
		die("Open_clientfd error", where, fd == -2 ? gai_reason(gai) : strerror(errno));
	}
	return fd;
}

int Open_listenfd(const char *port)
{
	int gai;
	int fd = listen_at(port, &gai);

	if (fd < 0)
		die("Open_listenfd error", port, fd == -2 ? gai_reason(gai) : strerror(errno));
	return fd;
}
