/* options.h - what the fetcher is told on the command line. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "file/fill.h"
#include "net/address.h"

struct fetch_options {
	const char *tracker_host, *tracker_port;	/* NULL: there is no tracker */
	struct address self;		/* where this peer listens, as the tracker knows it */
	const struct address *peers;	/* named on the command line */
	size_t peer_count;
	const struct older *olders;	/* to copy from */
	size_t older_count;
	unsigned check_workers;		/* processes that check what is there; up to four: what arrives */
	uint64_t max_download;		/* bytes a second, from all peers together; 0: no limit */
	unsigned give_up_s;		/* end when nothing has come for so long; 0: never */
	double time_scale;		/* of the time limits for peers and tracker; 1 is normal */
	bool ascending;			/* in the file's order, from chunk 0 on */
	bool verify_whole;		/* hash the complete file as a whole, too */
	int news;			/* the fetcher's end (net/news.h); -1: this peer doesn't serve */
};

#endif
