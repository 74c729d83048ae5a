/* limit.h - a limit for what all children of a serving parent send together.
 *
 * This is the whole of --max-upload. Without a limit the children send as fast as they
 * can. The limit is a pipe that all children share. The parent writes tokens into it at
 * the rate of the limit, and a child that has read a token may send a certain number of
 * bytes. The kernel serves waiting children in the order in which they came. */
#ifndef LIMIT_H
#define LIMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LIMIT_GIVE_MS 10	/* between two calls of limit_give */

struct upload_limit;

/* For the parent: returns a limit of so many bytes a second. Ends the program if there
 * is no memory or no pipe. */
struct upload_limit *limit_new(uint64_t bytes_per_second);

/* For the parent: writes the tokens that are due. Call it every LIMIT_GIVE_MS while
 * there are children. */
void limit_give(struct upload_limit *l);

/* For a child, once, after the fork: closes the parent's end of the pipe. */
void limit_close_giver(struct upload_limit *l);

/* For a child: waits for tokens, and adds to *allowed the bytes that it may send, until
 * *allowed is at least `least`. Returns false if no more tokens will come. */
bool limit_take(struct upload_limit *l, size_t *allowed, size_t least);

/* For a child that ends: leaves the bytes that it didn't send to the other children. */
void limit_give_back(struct upload_limit *l, size_t allowed);

#endif
