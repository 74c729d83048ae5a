/* limit.h - a limit to what all children of a serving parent send together.
 *
 * This is all of --max-upload; without it the children send as fast as they can.
 * The limit is a pipe of tokens, in memory that is shared. Each token allows who
 * reads it to send so many bytes. The parent fills the pipe as time goes by, and
 * the kernel serves the children that wait in the order in which they came. */
#ifndef LIMIT_H
#define LIMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LIMIT_GIVE_MS 10	/* between two calls of limit_give */

struct upload_limit;

/* For the parent: a limit of that many bytes a second. Ends the program if it
 * can't be had. */
struct upload_limit *limit_new(uint64_t bytes_per_second);

/* For the parent: gives the tokens that have become due. To be called every
 * LIMIT_GIVE_MS while there are children. */
void limit_give(struct upload_limit *l);

/* For a child, once: leaves the parent's end of the pipe to the parent. */
void limit_close_giver(struct upload_limit *l);

/* For a child: adds to *allowed, the bytes that it may send, until that is at least
 * enough for a response's header; waits for tokens. False: there will be no more. */
bool limit_take(struct upload_limit *l, size_t *allowed, size_t least);

/* For a child that ends: what it was allowed and didn't send is for the others. */
void limit_give_back(struct upload_limit *l, size_t allowed);

#endif
