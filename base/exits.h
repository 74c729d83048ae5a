/* exits.h - the exit statuses, the same for all programs. README.md has the table. */
#ifndef EXITS_H
#define EXITS_H

#include <errno.h>

enum {
	EXIT_DONE = 0,
	EXIT_UNABLE = 1,	/* a file can't be read or written, or the system refuses something else */
	EXIT_USAGE = 2,		/* wrong usage */
	EXIT_FULL = 3,		/* the disk or the quota is full */
	EXIT_GAVE_UP = 4,	/* nothing has come for as long as --give-up says */
	EXIT_INTERRUPTED = 5,	/* a signal ended it before everything was complete */
	EXIT_METAFILE = 6	/* the metafile is bad */
};

/* The exit status of a program that ends because of this errno. */
static inline int exits_for(int error)
{
	return error == ENOSPC || error == EDQUOT ? EXIT_FULL : EXIT_UNABLE;
}

#endif
