/* test_csapp_system.c - csapp.c around files, memory, processes, signals and threads, where all
 * goes well; and sio. */
#include "csapp.h"

#include <limits.h>
#include <sched.h>

#include "csapp_common.h"

/* ---- Files and directories ---- */

static void test_files(void)
{
	char path[UNIT_PATH_SIZE], buf[16] = "";
	struct stat by_name, by_fd;
	struct dirent *entry;
	bool found = false;
	int before = unit_open_fds();
	int fd, copy;
	FILE *f;
	DIR *dir;
	char *map;

	unit_path(path, "file");
	fd = Open(path, O_RDWR | O_CREAT | O_EXCL, DEF_MODE);
	CHECK(Write(fd, "line 1\nline 2\n", 14) == 14);
	CHECK(Lseek(fd, 5, SEEK_SET) == 5);
	copy = Dup2(fd, fd + 5);
	CHECK(copy == fd + 5);
	CHECK(Read(copy, buf, 1) == 1 && buf[0] == '1');
	Close(copy);
	Stat(path, &by_name);
	Fstat(fd, &by_fd);
	CHECK(by_name.st_size == 14 && by_name.st_ino == by_fd.st_ino);
	map = Mmap(NULL, 14, PROT_READ, MAP_SHARED, fd, 0);
	CHECK(memcmp(map, "line 1", 6) == 0);
	Munmap(map, 14);
	Close(fd);

	f = Fopen(path, "r");
	CHECK(Fgets(buf, sizeof buf, f) == buf && strcmp(buf, "line 1\n") == 0);
	CHECK(Fread(buf, 1, sizeof buf, f) == 7 && memcmp(buf, "line 2\n", 7) == 0);
	CHECK(Fgets(buf, sizeof buf, f) == NULL);
	Fclose(f);
	f = Fdopen(Open(path, O_WRONLY | O_TRUNC, 0), "w");
	Fputs("ab", f);
	Fwrite("cd", 1, 2, f);
	Fwrite("", 0, 9, f);
	Fclose(f);
	Stat(path, &by_name);
	CHECK(by_name.st_size == 4);

	dir = Opendir(unit_scratch);
	while ((entry = Readdir(dir)) != NULL)
		found = found || strcmp(entry->d_name, "file") == 0;
	CHECK(found);
	CHECK(Closedir(dir) == 0);
	unlink(path);
	CHECK(unit_open_fds() == before);
}

/* ---- Memory ---- */

static void test_allocation(void)
{
	char *p = Malloc(10);
	long *zeroed = Calloc(100, sizeof *zeroed);
	long sum = 0;

	memcpy(p, "123456789", 10);
	p = Realloc(p, 100000);
	CHECK(strcmp(p, "123456789") == 0);
	for (int i = 0; i < 100; i++)
		sum |= zeroed[i];
	CHECK(sum == 0);
	Free(zeroed);
	Free(p);
	Free(Malloc(0));
	Free(Calloc(0, 8));
	Free(NULL);
}

/* ---- Processes ---- */

static void test_processes(void)
{
	char *const argv[] = {(char []){"sh"}, (char []){"-c"}, (char []){"exit $CODE"}, NULL};
	char *const envp[] = {(char []){"CODE=42"}, NULL};
	int status;
	pid_t pid = Fork();

	if (pid == 0) {
		Execve("/bin/sh", argv, envp);
		_exit(0);
	}
	CHECK(Waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42);

	pid = Fork();
	if (pid == 0) {
		Setpgid(0, 0);
		Alarm(UNIT_TIME_LIMIT);
		if (Getpgrp() != getpid())
			_exit(1);
		for (;;)
			Pause();
	}
	CHECK(Waitpid(pid, &status, WNOHANG) == 0);
	Kill(pid, SIGTERM);
	CHECK(Wait(&status) == pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
	CHECK(Sleep(0) == 0);
}

/* ---- Signals ---- */

static volatile sig_atomic_t caught;

static void catch(int signum)
{
	caught = signum;
}

static void test_signal_restarts(void)
{
	char c;

	unit_pipe(deed_fd);
	CHECK(Signal(SIGALRM, tick) == SIG_DFL);
	start_ticks(write_once, SA_RESTART);    /* for the timer; the flags come from Signal */
	CHECK(Signal(SIGALRM, SIG_DFL) == tick);
	CHECK(Signal(SIGALRM, tick) == SIG_DFL);
	CHECK(read(deed_fd[0], &c, 1) == 1);    /* not rio: the restart is the kernel's */
	stop_ticks();
	CHECK(ticks >= 5);
	close_both(deed_fd);
}

static void test_signal_sets(void)
{
	sigset_t set, old, now;

	Sigfillset(&set);
	CHECK(Sigismember(&set, SIGUSR1) == 1);
	Sigdelset(&set, SIGUSR1);
	CHECK(Sigismember(&set, SIGUSR1) == 0);
	Sigemptyset(&set);
	CHECK(Sigismember(&set, SIGUSR2) == 0);
	Sigaddset(&set, SIGUSR1);

	Signal(SIGUSR1, catch);
	Sigprocmask(SIG_BLOCK, &set, &old);
	caught = 0;
	Kill(getpid(), SIGUSR1);
	CHECK(caught == 0);
	CHECK(Sigsuspend(&old) == -1 && errno == EINTR);
	CHECK(caught == SIGUSR1);
	Sigprocmask(SIG_SETMASK, NULL, &now);
	CHECK(Sigismember(&now, SIGUSR1) == 1);
	Sigprocmask(SIG_SETMASK, &old, NULL);
	Signal(SIGUSR1, SIG_DFL);
}

/* ---- sio ---- */

/* What f writes to fd 1, run in a child: stored in text; result: as of unit_wait(). */
static int output_of(void (*f)(void), char *text, size_t size)
{
	int end[2];
	size_t len;
	pid_t pid;

	unit_pipe(end);
	pid = start_with(end, 1, f);
	close(end[1]);
	len = unit_read(end[0], text, size - 1);
	text[len] = '\0';
	close(end[0]);
	return unit_wait(pid);
}

static void print_numbers(void)
{
	const long number[] = {LONG_MIN, -1, 0, 7, 10, LONG_MAX};

	for (size_t i = 0; i < LENGTH(number); i++) {
		char want[32];
		int len = snprintf(want, sizeof want, "%ld", number[i]);

		if (sio_putl(number[i]) != len || sio_puts(" ") != 1)
			_exit(1);
	}
	if (Sio_puts("end") != 3 || Sio_putl(-12) != 3 || sio_puts("") != 0)
		_exit(1);
}

static void print_to_nowhere(void)
{
	close(1);
	_exit(!(sio_puts("x") == -1 && errno == EBADF && sio_putl(0) == -1));
}

static void test_sio(void)
{
	char text[256], want[256];

	snprintf(want, sizeof want, "%ld -1 0 7 10 %ld end-12", LONG_MIN, LONG_MAX);
	CHECK(output_of(print_numbers, text, sizeof text) == 0);
	CHECK(strcmp(text, want) == 0);
	CHECK(output_of(print_to_nowhere, text, sizeof text) == 0);
}

/* ---- Threads ---- */

enum { THREADS = 4, ROUNDS = 2000 };

static sem_t mutex;
static long count;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void begin(void)
{
	Sem_init(&mutex, 0, 1);
	count = 1;
}

static void *add(void *arg)
{
	Pthread_once(&once, begin);
	for (int i = 0; i < ROUNDS; i++) {
		P(&mutex);
		long seen = count;

		if (i % 100 == 0)
			sched_yield(); /* an invitation to lose a count */
		count = seen + 1;
		V(&mutex);
	}
	Pthread_exit(arg);
}

static void *wait_to_be_cancelled(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static void *detach_myself(void *done)
{
	Pthread_detach(Pthread_self());
	V(done);
	return NULL;
}

static void test_threads(void)
{
	pthread_t tid[THREADS];
	void *result;
	sem_t done;

	for (int i = 0; i < THREADS; i++)
		Pthread_create(&tid[i], NULL, add, &tid[i]);
	for (int i = 0; i < THREADS; i++) {
		Pthread_join(tid[i], &result);
		CHECK(result == &tid[i]);
	}
	CHECK(count == 1 + THREADS * ROUNDS);

	Pthread_create(&tid[0], NULL, wait_to_be_cancelled, NULL);
	Pthread_cancel(tid[0]);
	Pthread_join(tid[0], &result);
	CHECK(result == PTHREAD_CANCELED);

	Sem_init(&done, 0, 0);
	Pthread_create(&tid[0], NULL, detach_myself, &done);
	P(&done);
}

static int run_all(void)
{
	RUN(test_files);
	RUN(test_allocation);
	RUN(test_processes);
	RUN(test_signal_restarts);
	RUN(test_signal_sets);
	RUN(test_sio);
	RUN(test_threads);
	return unit_result();
}

int main(void)
{
	return unit_in_scratch(run_all);
}
