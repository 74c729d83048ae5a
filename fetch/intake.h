/* intake.h - the limit to what all peers together may send: --max-download.
 *
 * The fetcher reads no more than the limit allows; what it doesn't read waits in the
 * sockets, and TCP makes the senders wait. One limit holds for the whole process. */
#ifndef INTAKE_H
#define INTAKE_H

#include <stddef.h>
#include <stdint.h>

/* Sets the limit, in bytes a second; 0: there is none. */
void intake_limit(uint64_t bytes_per_second);

/* How many bytes may be read from sockets now; 0: none before intake_next_ms. */
size_t intake_allowed(int64_t now_ms);

/* So many bytes were read. */
void intake_took(size_t bytes);

/* When some may be read again, if none may now; else next_ms, or that if it is earlier. */
int64_t intake_next_ms(int64_t now_ms, int64_t next_ms);

/* How many connections are enough: with more, each would be so slow that a peer may hang
 * up. most: without a limit. */
size_t intake_connections(size_t most);

#endif
