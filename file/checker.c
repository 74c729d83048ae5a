/* checker.c - starts a checker process, and passes runs of chunks through two pipes: to
 * the checker, and back with what it found. */
#include "file/checker.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/io.h"
#include "base/process.h"

#define CHECKER_NICE 10		/* fetching goes first: a checker takes the CPU time that is left */

_Static_assert(CHECKER_WAITING_MAX * sizeof(struct run) <= 4096, "more doesn't fit into any pipe");

/* Checks runs of one file, or closes it: nothing more will come of it. */
static void check_file(struct datafile *d, struct run runs[], size_t count)
{
	check_runs(&d->meta, d->fd, runs, count, d->held);
	if (runs[count - 1].count == 0)
		close(d->fd);
}

static void check_files(struct datafile files[], struct run runs[], size_t count)
{
	for (size_t first = 0, end; first < count; first = end) {
		end = first + 1;
		while (end < count && runs[end].file == runs[first].file)
			end++;
		check_file(&files[runs[first].file], &runs[first], end - first);
	}
}

/* The checker process: ends when the fetcher does, or closes its pipes. */
static _Noreturn void run_checker(int from_fetcher, int to_fetcher, struct datafile files[])
{
	struct run runs[CHECKER_WAITING_MAX];
	ssize_t got;

	/* Each run is written by one write, so only whole ones are there to read. */
	while ((got = io_read(from_fetcher, runs, sizeof runs)) > 0) {
		check_files(files, runs, (size_t)got / sizeof runs[0]);
		if (io_write(to_fetcher, runs, (size_t)got) < 0)
			break;
	}
	_exit(EXIT_SUCCESS);
}

int checker_start(struct checker *c, struct datafile files[])
{
	c->pid = process_fork_piped("checker", &c->from, &c->to);
	if (c->pid == 0) {
		(void)!nice(CHECKER_NICE);
		run_checker(c->from, c->to, files);
	}
	c->waiting = 0;
	return c->pid < 0 ? -1 : 0;
}

void checker_stop(struct checker *c)
{
	/* Another checker, forked later, may hold a copy of the pipe's end, so this one
	 * would wait for end of file in vain. Killing it loses nothing: all that
	 * it writes is bits in the map, each after its chunk was verified. */
	kill(c->pid, SIGKILL);
	process_wait(c->pid);
	close(c->to);
	close(c->from);
}

int checker_send(struct checker *c, const struct run *run)
{
	if (io_write(c->to, run, sizeof *run) < 0)
		return -1;
	c->waiting++;
	return 0;
}

ssize_t checker_receive(struct checker *c, struct run runs[CHECKER_WAITING_MAX])
{
	ssize_t size = io_read(c->from, runs, CHECKER_WAITING_MAX * sizeof runs[0]);

	if (size <= 0 || (size_t)size % sizeof runs[0] != 0)
		return -1;
	ssize_t count = size / (ssize_t)sizeof runs[0];
	c->waiting -= (unsigned)count;
	return count;
}
