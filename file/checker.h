/* checker.h - a process that checks what arrives, of any file, beside the fetcher: the
 * fetcher's side of it. */
#ifndef CHECKER_H
#define CHECKER_H

#include <sys/types.h>

#include "file/check.h"
#include "file/datafile.h"

struct checker {
	pid_t pid;
	int to, from;		/* pipes of struct run; `from` may be polled */
	unsigned waiting;	/* runs that were sent and have not come back */
};

#define CHECKER_WAITING_MAX 80	/* so many runs fit into any pipe: 4096 bytes */

/* Starts a checker, for the chunks of these files: a run's file is its place
 * among them. They must last until checker_stop, which ends and reaps the process. Returns 0,
 * or -1 with errno. */
int checker_start(struct checker *c, struct datafile files[]);

/* Ends the checker, at work or not, and reaps it. What it has not checked is not held. */
void checker_stop(struct checker *c);

/* Sends a run to be checked, or, if it has no chunks, has the checker close that file; never
 * blocks while c->waiting < CHECKER_WAITING_MAX. Returns 0, or -1 with errno if the checker
 * is gone. */
int checker_send(struct checker *c, const struct run *run);

/* Takes the runs that were checked, in the order in which they were sent; blocks if there
 * are none. Returns how many there were, or -1 if the checker is gone. */
ssize_t checker_receive(struct checker *c, struct run runs[CHECKER_WAITING_MAX]);

#endif
