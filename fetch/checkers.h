/* checkers.h - the processes that check what arrives (file/checker.h): a few for all files
 * together, each started when it is needed. */
#ifndef CHECKERS_H
#define CHECKERS_H

#include <poll.h>

#include "file/checker.h"

#define CHECKERS_MAX 4	/* more can't be kept busy: the fetcher is one process */

/* Begins, without a process yet, to check chunks of these files with up to at_most processes.
 * when_taken is called with each run that comes back; when_died when a checker has died, and what
 * it was given is lost. checkers_end ends the processes, at work or not, and reaps them. */
void checkers_begin(struct datafile files[], unsigned at_most, void (*when_taken)(const struct run *run),
		    void (*when_died)(void));
void checkers_end(void);

/* Gives the run to a checker. If all have as much as they can take, waits for one, and takes
 * what comes back. Returns 0; or -1: there is no checker, and none can be started now. */
int checkers_send(const struct run *run);

/* Nothing more will come of that file: has the checkers close it. */
void checkers_close(uint32_t file);

/* Waits until some run comes back. Some must be with a checker. */
void checkers_wait(void);

/* Fills in what to poll for; takes what has come then. */
void checkers_poll(struct pollfd place[CHECKERS_MAX]);
void checkers_take(const struct pollfd place[CHECKERS_MAX]);

#endif
