/* peer_serve.h - the serving side of a peer: a parent process that accepts clients, and
 * a child process for each client. */
#ifndef PEER_SERVE_H
#define PEER_SERVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "file/datafile.h"
#include "net/address.h"

#define MAX_CLIENTS_DEFAULT 256

struct serve_options {
	struct datafile *files;		/* serve closes their descriptors, and makes the maps of
					 * held chunks read-only: only the fetcher needs more */
	size_t count;
	int listen_fd;			/* non-blocking */
	unsigned max_clients;		/* children at a time */
	uint64_t max_upload;		/* bytes a second, of all children together; 0: no limit */
	bool verify;			/* hash each chunk again before it is sent */
	int64_t linger_s;		/* end when the fetcher has ended, and nobody has asked for so
					 * long; -1: serve until a signal comes */
	pid_t fetcher;			/* a child of this process, forked before */
	int news;			/* the parent's end (net/news.h) */
	const char *tracker_host, *tracker_port;	/* NULL: there is no tracker */
	struct address self;		/* as the tracker is to know this peer */
};

/* Serves until SIGTERM, SIGINT or SIGHUP comes, or until the fetcher exits with
 * EXIT_GAVE_UP; then kills all children, the fetcher too. If the fetcher ends in
 * another way, serving goes on: for ever, or until nobody has asked for linger_s.
 * SIGUSR1 prints which files are served, and to which clients. Returns the exit status
 * (base/exits.h): the fetcher's if it has failed, else whether all files are complete.
 * Call serve_block_signals before the fetcher is forked, so that no signal is missed. */
void serve_block_signals(void);
int serve(const struct serve_options *options);

#endif
