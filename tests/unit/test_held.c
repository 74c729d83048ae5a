/* test_held.c - the map of chunks that are held: alone, shared by processes, and read-only. */
#include "file/held.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "unit.h"

static void test_held(void)
{
	static const uint64_t chunks[] = {1, 7, 8, 9, 63, 64, 65, 1000};

	for (size_t c = 0; c < LENGTH(chunks); c++) {
		struct held *held = held_new(chunks[c], 0);
		CHECK(held != NULL && held->chunks == chunks[c] && !held->some);
		CHECK(held_count(held) == 0);
		for (uint64_t i = 0; i < chunks[c]; i++)
			CHECK(!held_has(held, i));
		for (uint64_t n = 0; n < chunks[c]; n++) {	/* every third, then the others */
			uint64_t add = n * 3 % chunks[c] + (chunks[c] % 3 == 0 ? n * 3 / chunks[c] : 0);
			held_add(held, add);
			CHECK(held_has(held, add) && held_count(held) == n + 1 && held->some);
		}
		held_add(held, chunks[c] / 2);		/* once more changes nothing */
		CHECK(held_count(held) == chunks[c]);
		held_free(held);
	}
}

static void test_held_one(void)
{
	for (uint64_t only = 0; only < 40; only++) {
		struct held *held = held_new(40, 0);
		held_add(held, only);
		for (uint64_t i = 0; i < 40; i++)
			CHECK(held_has(held, i) == (i == only));
		held_free(held);
	}
}

static void test_held_none(void)
{
	struct held *held = held_new(0, 0);

	CHECK(held != NULL && held_count(held) == 0);
	held_free(held);
	errno = 0;
	CHECK(held_new(UINT64_MAX, 0) == NULL && errno != 0);
}

/* Either side sees what the other adds after the fork. */
static void test_held_is_shared(void)
{
	struct held *held = held_new(100, 0);
	int go[2];
	char byte;

	unit_pipe(go);
	pid_t pid = unit_fork();
	if (pid == 0) {
		bool right = read(go[0], &byte, 1) == 1 && held_has(held, 42) && held->some &&
			     !held_has(held, 43);
		held_add(held, 43);
		_exit(!right);
	}
	held_add(held, 42);
	CHECK(write(go[1], "g", 1) == 1);
	CHECK(unit_wait(pid) == 0);
	CHECK(held_has(held, 43) && held_count(held) == 2);
	close(go[0]);
	close(go[1]);
	held_free(held);
}

/* Two add neighbouring chunks at the same time, and none is lost. After each byte of the map
 * one waits for the other, so that they stay together; but not for ever, if one was lost. */
static void test_held_by_two(void)
{
	enum { CHUNKS = 160000, PATIENCE = 1000 };
	struct held *held = held_new(CHUNKS, 0);
	pid_t pid[2];

	for (uint64_t p = 0; p < 2; p++)
		if ((pid[p] = unit_fork()) == 0) {
			for (uint64_t i = 0; i < CHUNKS; i += 8) {
				for (uint64_t k = p; k < 8; k += 2)
					held_add(held, i + k);
				for (int n = 0; n < PATIENCE && !held_has(held, i + 7 - p); n++)
					sched_yield();
			}
			_exit(0);
		}
	CHECK(unit_wait(pid[0]) == 0 && unit_wait(pid[1]) == 0);
	CHECK(held_count(held) == CHUNKS);
	held_free(held);
}

/* Tries to make chunk 3 count, by all means that a process has to write its memory. Result: 0
 * if none works. */
static int add_by_force(struct held *held)
{
	signal(SIGSEGV, SIG_DFL);	/* a sanitizer would report it */
	signal(SIGBUS, SIG_DFL);
#if defined(__linux__) && !defined(PORTABLE)
	void *page = (void *)((uintptr_t)held & ~(uintptr_t)(sysconf(_SC_PAGESIZE) - 1));
	if (mprotect(page, sizeof *held + 100 / 8 + 1, PROT_READ | PROT_WRITE) == 0 || errno != EACCES)
		return 1;
	int fd = open("/proc/self/mem", O_RDWR);
	if (fd >= 0) {
		const unsigned char ones = 0xff;
		if (pwrite(fd, &ones, 1, (off_t)(uintptr_t)&held->bits[0]) == 1)
			return 2;
		close(fd);
	}
#endif
	held_add(held, 3);
	return 3;
}

/* Who gave the right to add up, and whoever it forks, sees what others add, and adds nothing. */
static void test_held_read_only(void)
{
	struct held *held = held_new(100, sizeof(atomic_int));
	int go[2], done[2];
	char byte;

	unit_pipe(go);
	unit_pipe(done);
	held_add(held, 1);
	pid_t adder = unit_fork();
	if (adder == 0) {
		if (read(go[0], &byte, 1) != 1)
			_exit(1);
		held_add(held, 42);
		*(atomic_int *)held_owner_memory(held) = 42;
		_exit(write(done[1], "d", 1) != 1);
	}
	held = held_read_only(held);
	CHECK(held->chunks == 100 && held_has(held, 1) && !held_has(held, 42));
	pid_t seer = unit_fork();
	if (seer == 0)
		_exit(!(read(done[0], &byte, 1) == 1 && held_has(held, 42) && held_has(held, 1) &&
			*(atomic_int *)held_owner_memory(held) == 42));
	CHECK(write(go[1], "g", 1) == 1);
	CHECK(unit_wait(adder) == 0 && unit_wait(seer) == 0);
	pid_t thief = unit_fork();
	if (thief == 0)
		_exit(add_by_force(held));
	CHECK(unit_wait(thief) == -SIGSEGV);
	CHECK(held_count(held) == 2 && held_has(held, 42));
	CHECK(held_read_only(held) == held);	/* once more changes nothing */
	held_free(held);
	for (int i = 0; i < 2; i++) {
		close(go[i]);
		close(done[i]);
	}
}

static void test_held_leaves_nothing_open(void)
{
	int before = unit_open_fds();
	struct held *held = held_new(100, 0);

	CHECK(unit_open_fds() == before);
	held_free(held);
	CHECK(unit_open_fds() == before);
}

static void test_held_owner_memory(void)
{
	struct held *held = held_new(100, 1000);
	unsigned char *owned = held_owner_memory(held);
	bool zero = true;

	for (int i = 0; i < 1000; i++)
		zero = zero && owned[i] == 0;
	CHECK(zero && (uintptr_t)owned % _Alignof(max_align_t) == 0);
	for (int i = 0; i < 1000; i++)
		owned[i] = 0xff;
	CHECK(held->chunks == 100 && held_count(held) == 0 && !held->some);
	held_free(held);
}

static int run_all(void)
{
	RUN(test_held);
	RUN(test_held_one);
	RUN(test_held_none);
	RUN(test_held_is_shared);
	RUN(test_held_by_two);
	RUN(test_held_read_only);
	RUN(test_held_leaves_nothing_open);
	RUN(test_held_owner_memory);
	return unit_result();
}

int main(void)
{
	return unit_in_scratch(run_all);
}
