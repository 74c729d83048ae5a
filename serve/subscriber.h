/* subscriber.h - telling the tracker which files this peer serves.
 *
 * A separate process does that, the subscriber, because the tracker may be slow. So
 * other peers learn about this one, and the fetcher learns about the peers that the
 * tracker names in its answer (net/news.h). Without it only those find this peer who
 * are given its address. Only the serving parent uses this module. */
#ifndef SUBSCRIBER_H
#define SUBSCRIBER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "file/datafile.h"
#include "net/address.h"

struct subscriber_options {
	const char *tracker_host, *tracker_port;	/* NULL: there is no tracker */
	struct address self;		/* as the tracker is to know this peer */
	const struct datafile *files;
	size_t count;
	int news;			/* the parent's end: the answers are sent through it */
	int listen_fd;			/* closed in the subscriber */
};

/* Call it first. The options are copied, but not what they point to. Ends the program
 * if there is no memory. */
void subscriber_begin(const struct subscriber_options *options);

/* Starts the subscriber if it is time to subscribe again, or if the tracker doesn't
 * know yet that a file is served. A file is subscribed once it holds a chunk and its
 * local check is done, or will never be: fetching tells whether the fetcher runs. */
void subscriber_start_if_due(bool fetching);

/* Returns when the next call is needed: next_ms, or an earlier time. */
int64_t subscriber_next_ms(int64_t next_ms);

/* To be told about an ended process and its status from waitpid(2). Returns whether it
 * was the subscriber. */
bool subscriber_ended(pid_t pid, int status);

/* Kills the subscriber, if it runs. The caller waits for it. */
void subscriber_kill(void);

#endif
