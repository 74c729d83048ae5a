/* test_csapp_capitals.c - the Capitals of csapp.c: that they go on after a signal, and end the
 * program at a failure, after one line that says why. */
#include "csapp.h"

#include <limits.h>
#include <stdint.h>
#include <sys/un.h>

#include "csapp_common.h"

/* ---- Deeds of the ticking clock ---- */

static struct sockaddr_storage deed_addr;
static socklen_t deed_addrlen;
static sem_t deed_sem;
static char deed_path[UNIT_PATH_SIZE];

static void drain(void)         /* a pipe; its reading end must not block */
{
	static char buf[10000];

	if (read(deed_fd[0], buf, sizeof buf) < 0 && errno != EAGAIN)
		_exit(2);
}

static void close_write_end(void)
{
	if (ticks == 5)
		close(deed_fd[1]);
}

static void connect_once(void)
{
	if (ticks == 5) {
		int fd = socket(deed_addr.ss_family, SOCK_STREAM, 0);

		if (connect(fd, (SA *)&deed_addr, deed_addrlen) < 0)
			_exit(2);
	}
}

static void accept_once(void)
{
	if (ticks == 5 && accept(deed_fd[0], NULL, NULL) < 0)
		_exit(2);
}

static void post_once(void)
{
	if (ticks == 5)
		sem_post(&deed_sem);
}

static void open_fifo(void)
{
	if (ticks == 5)
		deed_fd[1] = open(deed_path, O_RDWR | O_NONBLOCK);
}

/* ---- Those that go on after a signal ---- */

/* Runs in a child: f is to come back although signals hit it all the time. */
static int survives(void (*f)(void))
{
	pid_t pid = unit_fork();

	if (pid == 0) {
		f();
		_exit(ticks >= 5 ? 0 : 4);
	}
	return unit_wait(pid);
}

static void read_on(void)
{
	char c;

	unit_pipe(deed_fd);
	start_ticks(write_once, 0);
	if (Read(deed_fd[0], &c, 1) != 1)
		_exit(5);
}

static void write_on(void)
{
	static const char zeros[4096];

	unit_pipe(deed_fd);
	fcntl(deed_fd[0], F_SETFL, O_NONBLOCK);
	fcntl(deed_fd[1], F_SETFL, O_NONBLOCK);
	while (write(deed_fd[1], zeros, sizeof zeros) > 0)
		;
	fcntl(deed_fd[1], F_SETFL, 0);
	start_ticks(drain, 0);
	if (Write(deed_fd[1], "x", 1) != 1)
		_exit(5);
}

static void select_on(void)
{
	fd_set set;

	unit_pipe(deed_fd);
	FD_ZERO(&set);
	FD_SET((unsigned int)deed_fd[0], &set);
	start_ticks(write_once, 0);
	if (Select(deed_fd[0] + 1, &set, NULL, NULL, NULL) != 1
	    || !FD_ISSET((unsigned int)deed_fd[0], &set))
		_exit(5);
}

static pid_t child_that_ends_with_the_pipe(void)
{
	pid_t pid;

	unit_pipe(deed_fd);
	pid = unit_fork();
	if (pid == 0) {
		char c;

		close(deed_fd[1]);
		_exit(read(deed_fd[0], &c, 1) == 0 ? 7 : 8);
	}
	start_ticks(close_write_end, 0);
	return pid;
}

static void waitpid_on(void)
{
	int status;
	pid_t pid = child_that_ends_with_the_pipe();

	if (Waitpid(pid, &status, 0) != pid || WEXITSTATUS(status) != 7)
		_exit(5);
}

static void wait_on(void)
{
	int status;
	pid_t pid = child_that_ends_with_the_pipe();

	if (Wait(&status) != pid || WEXITSTATUS(status) != 7)
		_exit(5);
}

static void p_on(void)
{
	Sem_init(&deed_sem, 0, 0);
	start_ticks(post_once, 0);
	P(&deed_sem);
}

static void accept_on(void)
{
	struct sockaddr_in addr = {.sin_family = AF_INET};
	int fd = Socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_storage peer;
	socklen_t len = sizeof peer;

	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	Bind(fd, (SA *)&addr, sizeof addr);
	Listen(fd, LISTENQ);
	deed_addrlen = sizeof deed_addr;
	if (getsockname(fd, (SA *)&deed_addr, &deed_addrlen) < 0)
		_exit(5);
	start_ticks(connect_once, 0);
	if (Accept(fd, (SA *)&peer, &len) < 0 || peer.ss_family != AF_INET)
		_exit(5);
}

/* A Unix socket whose queue is full lets connect wait, on Linux at least. */
static void connect_on(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd;

	unit_path(addr.sun_path, "socket");
	deed_fd[0] = Socket(AF_UNIX, SOCK_STREAM, 0);
	Bind(deed_fd[0], (SA *)&addr, sizeof addr);
	Listen(deed_fd[0], 0);
	do {
		fd = Socket(AF_UNIX, SOCK_STREAM, 0);
		fcntl(fd, F_SETFL, O_NONBLOCK);
	} while (connect(fd, (SA *)&addr, sizeof addr) == 0);
	fcntl(fd, F_SETFL, 0);
	start_ticks(accept_once, 0);
	Connect(fd, (SA *)&addr, sizeof addr);
	unlink(addr.sun_path);
	if (write(fd, "x", 1) != 1) /* truly connected */
		_exit(5);
}

static void open_on(void)
{
	unit_path(deed_path, "fifo");
	if (mkfifo(deed_path, S_IRUSR | S_IWUSR) < 0)
		_exit(5);
	start_ticks(open_fifo, 0);
	Close(Open(deed_path, O_RDONLY, 0));
	unlink(deed_path);
}

static void test_capitals_go_on(void)
{
	CHECK(survives(read_on) == 0);
	CHECK(survives(write_on) == 0);
	CHECK(survives(select_on) == 0);
	CHECK(survives(waitpid_on) == 0);
	CHECK(survives(wait_on) == 0);
	CHECK(survives(p_on) == 0);
	CHECK(survives(accept_on) == 0);
	CHECK(survives(connect_on) == 0);
	CHECK(survives(open_on) == 0);
}

/* ---- Those that end the program ---- */

/* The address sanitizer does not let malloc return NULL. */
#if defined __SANITIZE_ADDRESS__
#define MALLOC_MAY_FAIL false
#elif defined __has_feature
#if __has_feature(address_sanitizer)
#define MALLOC_MAY_FAIL false
#endif
#endif
#ifndef MALLOC_MAY_FAIL
#define MALLOC_MAY_FAIL true
#endif

/* Runs f in a child whose standard error is a datagram socket, so that each write(2) stays by
 * itself. f must end it with status 1, after one write: one line that starts with msg and
 * ends with reason. */
static bool dies(void (*f)(void), const char *msg, const char *reason)
{
	int end[2], status;
	char said[4096], more;
	ssize_t n;
	size_t len;
	bool good;

	if (socketpair(AF_UNIX, SOCK_DGRAM, 0, end) < 0)
		abort();
	status = unit_wait(start_with(end, 2, f));
	n = recv(end[0], said, sizeof said - 1, MSG_DONTWAIT);
	len = n > 0 ? (size_t)n : 0;
	said[len] = '\0';
	good = status == 1 && len > 0 && strchr(said, '\n') == said + len - 1
	       && strncmp(said, msg, strlen(msg)) == 0 && len - 1 >= strlen(reason)
	       && strncmp(said + len - 1 - strlen(reason), reason, strlen(reason)) == 0
	       && recv(end[0], &more, 1, MSG_DONTWAIT) < 0;
	if (!good)
		fprintf(stderr, "%s: exit %d, said \"%s\", not \"... %s\"\n", msg, status, said,
		        reason);
	close_both(end);
	return good;
}

static void say_unix(void) { errno = ENOENT; unix_error("one"); }
static void say_posix(void) { errno = ENOENT; posix_error(EAGAIN, "two"); }
static void say_gai(void) { gai_error(EAI_SERVICE, "three"); }
static void say_gai_system(void) { errno = EMFILE; gai_error(EAI_SYSTEM, "four"); }
static void say_app(void) { app_error("five"); }
static void say_dns(void) { h_errno = HOST_NOT_FOUND; dns_error("six"); }
static void say_sio(void) { Sio_error("seven"); }
static void say_lines(void) { app_error("two\nlines\033[1m\n"); }

static void say_much(void)
{
	static char much[300 * 1000];

	errno = ENOENT;
	memset(much, 'z', sizeof much - 1);
	unix_error(much);
}

static void test_error_family(void)
{
	CHECK(dies(say_unix, "one: ", strerror(ENOENT)));
	CHECK(dies(say_posix, "two: ", strerror(EAGAIN)));
	CHECK(dies(say_gai, "three: ", gai_strerror(EAI_SERVICE)));
	CHECK(dies(say_gai_system, "four: ", strerror(EMFILE)));
	CHECK(dies(say_app, "five\n", "five"));
	CHECK(dies(say_dns, "six: ", hstrerror(HOST_NOT_FOUND)));
	CHECK(dies(say_sio, "seven\n", "seven"));
	CHECK(dies(say_lines, "two lines [1m\n", "m"));
	CHECK(dies(say_much, "zzzz", strerror(ENOENT)));
}

static struct stat st;
static char *const just_a_name[] = {(char []){"name"}, NULL};
static const char missing[] = "/no/such/file";
/* More than any address space; positive as an ssize_t where it can be, to please valgrind. */
static volatile size_t too_much = SIZE_MAX > 0xffffffff ? SIZE_MAX / 4 : SIZE_MAX - 100000;
static struct sockaddr_in nowhere = {.sin_family = AF_INET};

static FILE *full_device(void)
{
	FILE *f = Fopen("/dev/full", "w");

	setvbuf(f, NULL, _IONBF, 0);
	return f;
}

static void die_execve(void) { Execve(missing, just_a_name, just_a_name); }
static void die_wait(void) { Wait(NULL); }
static void die_waitpid(void) { Waitpid(-1, NULL, 0); }
static void die_kill(void) { Kill(getpid(), -1); }
static void die_setpgid(void) { Setpgid(0, -1); }
static void die_signal(void) { Signal(SIGKILL, SIG_IGN); }
static void die_sigprocmask(void) { sigset_t s; Sigemptyset(&s); Sigprocmask(-99, &s, NULL); }
static void die_sigaddset(void) { sigset_t s; Sigemptyset(&s); Sigaddset(&s, -1); }
static void die_sigdelset(void) { sigset_t s; Sigemptyset(&s); Sigdelset(&s, -1); }
static void die_sio_puts(void) { close(1); Sio_puts("x"); }
static void die_sio_putl(void) { close(1); Sio_putl(1); }
static void die_open(void) { Open(missing, O_RDONLY, 0); }
static void die_read(void) { char c; Read(-1, &c, 1); }
static void die_write(void) { Write(-1, "x", 1); }
static void die_lseek(void) { unit_pipe(deed_fd); Lseek(deed_fd[0], 0, SEEK_SET); }
static void die_close(void) { Close(-1); }
static void die_dup2(void) { Dup2(-1, 0); }
static void die_select(void) { Select(-1, NULL, NULL, NULL, NULL); }
static void die_stat(void) { Stat(missing, &st); }
static void die_fstat(void) { Fstat(-1, &st); }
static void die_opendir(void) { Opendir(missing); }
static void die_mmap(void) { Mmap(NULL, 4096, PROT_READ, MAP_SHARED, -1, 0); }
static void die_munmap(void) { Munmap(unit_scratch + 1, 1); }
static void die_malloc(void) { Malloc(too_much); }
static void die_realloc(void) { Realloc(NULL, too_much); }
static void die_calloc(void) { Calloc(too_much / 4, 4); }
static void die_fopen(void) { Fopen(missing, "r"); }
static void die_fdopen(void) { Fdopen(0, "?"); }
static void die_fgets(void) { char b[9]; Fgets(b, 9, Fopen("/", "r")); }
static void die_fread(void) { char b[9]; Fread(b, 1, 9, Fopen("/", "r")); }
static void die_fputs(void) { Fputs("x", full_device()); }
static void die_fwrite(void) { Fwrite("x", 1, 1, full_device()); }
static void die_fclose(void) { FILE *f = Fopen("/dev/full", "w"); fputs("x", f); Fclose(f); }
static void die_socket(void) { Socket(-1, SOCK_STREAM, 0); }
static void die_setsockopt(void) { int on = 1; Setsockopt(-1, SOL_SOCKET, 0, &on, sizeof on); }
static void die_bind(void) { Bind(-1, (SA *)&nowhere, sizeof nowhere); }
static void die_listen(void) { Listen(-1, 1); }
static void die_accept(void) { Accept(-1, NULL, NULL); }
static void die_connect(void) { Connect(-1, (SA *)&nowhere, sizeof nowhere); }
static void die_inet_pton(void) { struct in_addr a; Inet_pton(AF_INET, "1.2.3", &a); }
static void die_inet_ntop(void) { char b[3]; Inet_ntop(AF_INET, &nowhere.sin_addr, b, 3); }
static void die_readn(void) { char c; Rio_readn(-1, &c, 1); }
static void die_writen(void) { Rio_writen(-1, "x", 1); }
static void die_readnb(void) { rio_t r; char c; Rio_readinitb(&r, -1); Rio_readnb(&r, &c, 1); }
static void die_line(void) { rio_t r; char c; Rio_readinitb(&r, -1); Rio_readlineb(&r, &c, 0); }
static void die_sem_init(void) { sem_t s; Sem_init(&s, 0, UINT_MAX); }
static void die_listenfd(void) { Open_listenfd("70000"); }

static void die_clientfd(void)
{
	char port[16];

	unit_bound_port(port);
	Open_clientfd("127.0.0.1", port);
}

static void die_clientfd_name(void) { Open_clientfd("127.0.0.1", "no-such-service"); }

static void die_getaddrinfo(void)
{
	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST}, *list;

	Getaddrinfo("1.2.3.x", "80", &hints, &list);
}

static void die_getnameinfo(void)
{
	struct sockaddr_in addr = {.sin_family = AF_INET};
	char host[2];

	Getnameinfo((SA *)&addr, sizeof addr, host, 2, NULL, 0, NI_NUMERICHOST);
}

static void *do_nothing(void *arg)
{
	return arg;
}

static pthread_attr_t endless_stack; /* more than any address space holds */

static void die_pthread_create(void)
{
	pthread_t tid;

	errno = ENOENT;
	Pthread_create(&tid, &endless_stack, do_nothing, NULL);
}

/* The reason is what pthread_create returned (EAGAIN), not errno (ENOMEM, by and by). */
static void test_pthread_error(void)
{
	pthread_t tid;
	int code;

	pthread_attr_init(&endless_stack);
	if (pthread_attr_setstacksize(&endless_stack, SIZE_MAX / 16 * 15) != 0)
		CHECK(pthread_attr_setstacksize(&endless_stack, SIZE_MAX / 4) == 0);
	code = pthread_create(&tid, &endless_stack, do_nothing, NULL);
	CHECK(code != 0);
	CHECK(dies(die_pthread_create, "Pthread_create error: ", strerror(code)));
	pthread_attr_destroy(&endless_stack);
}

static void test_capitals_end_the_program(void)
{
	static const struct {
		void (*f)(void);
		const char *msg;
		int reason;     /* errno */
	} death[] = {
		{die_execve, "Execve error: /no/such/file: ", ENOENT},
		{die_wait, "Wait error: ", ECHILD},
		{die_waitpid, "Waitpid error: ", ECHILD},
		{die_kill, "Kill error: ", EINVAL},
		{die_setpgid, "Setpgid error: ", EINVAL},
		{die_signal, "Signal error: ", EINVAL},
		{die_sigprocmask, "Sigprocmask error: ", EINVAL},
		{die_sigaddset, "Sigaddset error: ", EINVAL},
		{die_sigdelset, "Sigdelset error: ", EINVAL},
		{die_open, "Open error: /no/such/file: ", ENOENT},
		{die_read, "Read error: ", EBADF},
		{die_write, "Write error: ", EBADF},
		{die_lseek, "Lseek error: ", ESPIPE},
		{die_close, "Close error: ", EBADF},
		{die_dup2, "Dup2 error: ", EBADF},
		{die_select, "Select error: ", EINVAL},
		{die_stat, "Stat error: /no/such/file: ", ENOENT},
		{die_fstat, "Fstat error: ", EBADF},
		{die_opendir, "Opendir error: /no/such/file: ", ENOENT},
		{die_mmap, "Mmap error: ", EBADF},
		{die_munmap, "Munmap error: ", EINVAL},
		{die_fopen, "Fopen error: /no/such/file: ", ENOENT},
		{die_fdopen, "Fdopen error: ", EINVAL},
		{die_fgets, "Fgets error: ", EISDIR},
		{die_fread, "Fread error: ", EISDIR},
		{die_fputs, "Fputs error: ", ENOSPC},
		{die_fwrite, "Fwrite error: ", ENOSPC},
		{die_fclose, "Fclose error: ", ENOSPC},
		{die_setsockopt, "Setsockopt error: ", EBADF},
		{die_bind, "Bind error: ", EBADF},
		{die_listen, "Listen error: ", EBADF},
		{die_accept, "Accept error: ", EBADF},
		{die_connect, "Connect error: ", EBADF},
		{die_socket, "Socket error: ", EAFNOSUPPORT},
		{die_inet_ntop, "Inet_ntop error: ", ENOSPC},
		{die_sem_init, "Sem_init error: ", EINVAL},
		{die_readn, "Rio_readn error: ", EBADF},
		{die_writen, "Rio_writen error: ", EBADF},
		{die_readnb, "Rio_readnb error: ", EBADF},
		{die_line, "Rio_readlineb error: ", EINVAL},
		{die_clientfd, "Open_clientfd error: 127.0.0.1 port ", ECONNREFUSED},
	};

	for (size_t i = 0; i < LENGTH(death); i++)
		CHECK(dies(death[i].f, death[i].msg, strerror(death[i].reason)));
	if (MALLOC_MAY_FAIL) {
		CHECK(dies(die_malloc, "Malloc error: ", strerror(ENOMEM)));
		CHECK(dies(die_realloc, "Realloc error: ", strerror(ENOMEM)));
		CHECK(dies(die_calloc, "Calloc error: ", strerror(ENOMEM)));
	}
	CHECK(dies(die_sio_puts, "Sio_puts error\n", "error"));
	CHECK(dies(die_sio_putl, "Sio_putl error\n", "error"));
	CHECK(dies(die_inet_pton, "Inet_pton error: 1.2.3: ", "not an address"));
	CHECK(dies(die_listenfd, "Open_listenfd error: 70000: ", gai_strerror(EAI_SERVICE)));
	CHECK(dies(die_clientfd_name, "Open_clientfd error: 127.0.0.1 port no-such-service: ",
	           gai_strerror(EAI_SERVICE)));
	CHECK(dies(die_getaddrinfo, "Getaddrinfo error: 1.2.3.x: ", gai_strerror(EAI_NONAME)));
	CHECK(dies(die_getnameinfo, "Getnameinfo error: ", gai_strerror(EAI_OVERFLOW)));
}

static int run_all(void)
{
	RUN(test_capitals_go_on);
	RUN(test_error_family);
	RUN(test_capitals_end_the_program);
	RUN(test_pthread_error);
	return unit_result();
}

int main(void)
{
	return unit_in_scratch(run_all);
}
