/* subscriber.h - telling the tracker which files this peer serves.
 *
 * A process of its own does, the subscriber, since the tracker may take its time. So
 * other peers learn of this one, and the fetcher of those that the tracker names in
 * its answer (net/news.h). Without it a peer serves whoever is told its address.
 * Only the serving parent uses this. */
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
	int news;			/* the parent's end: gets what the tracker answers */
	int listen_fd;			/* is closed in the subscriber */
};

/* To be called first. The options are copied; what they point to is kept. Ends the
 * program if there is no memory. */
void subscriber_begin(const struct subscriber_options *options);

/* Starts the subscriber if it is time to subscribe again, or if something is held
 * that the tracker doesn't know of yet. A file counts once its local check is done,
 * or if nobody is there to do it: fetching tells whether the fetcher runs. */
void subscriber_start_if_due(bool fetching);

/* When the next call may find it due: next_ms, or a time before that. */
int64_t subscriber_next_ms(int64_t next_ms);

/* Notes that the process has ended with that status of waitpid(2). Returns whether it
 * was the subscriber. */
bool subscriber_ended(pid_t pid, int status);

/* Kills it, if it runs. It is to be waited for. */
void subscriber_kill(void);

#endif
