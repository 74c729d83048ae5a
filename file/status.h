/* status.h - what a script reads of a running peer (--status): a block of lines
 * KEY=VALUE each second. README.md documents the keys.
 *
 * One process writes: the one that called status_open, or, when the fetcher was forked,
 * its parent. The fetcher tells it what it does through shared memory. If there is no
 * --status, nothing here does anything. */
#ifndef STATUS_H
#define STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "file/datafile.h"

enum status_state {
	STATUS_STARTING, STATUS_CHECKING, STATUS_DOWNLOADING, STATUS_VERIFYING, STATUS_COMPLETE, STATUS_FAILED
};

/* Begins to write to path: "-" for standard output. A FIFO or a device gets each block,
 * as far as somebody reads it; any other file is replaced by each. The path is kept. Ends
 * the program if it can't be written. The last block is written when this process exits. */
void status_open(const char *path);

/* The files that it is about, for as long as this process runs. */
void status_files(const struct datafile files[], size_t count);

/* What is being done; to how many peers there is a connection; how many bytes have been
 * looked at, of those that the file being checked has. Any process of the family may
 * call these. */
void status_doing(enum status_state state);
void status_peers(unsigned peers);
void status_checked(uint64_t bytes);

/* To be called in the forked fetcher: its parent writes. */
void status_leave(void);

/* How many clients are served now, and the bytes that were sent to all there ever were. */
void status_serving(unsigned clients, uint64_t sent);

/* Whether status_show would write a block now. */
bool status_is_due(void);

/* Writes a block, if it is time to. Call it as often as you like. */
void status_show(void);

/* When status_show will have something to write: next_ms, or an earlier time. */
int64_t status_next_ms(int64_t next_ms);

/* The process will exit with that exit status. Writes the last block; a signal handler
 * may call it. */
void status_end(int exit_status);

#endif
