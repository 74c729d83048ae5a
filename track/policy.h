/* policy.h - what the tracker's operator has decided: which files are tracked,
 * which peers are vouched for, and who may subscribe. */
#ifndef POLICY_H
#define POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "net/wire.h"

/* Each of these is called before the first request; the program ends if there is
 * no memory. Without any file, every file is tracked. */
void policy_track_file(const uint8_t cascade_hash[SHA256_HASH_SIZE]);
void policy_vouch_for(uint32_t ip);
void policy_ban_private(void);

/* Whether peers at that IPv4 address are vouched for. */
bool policy_is_good(uint32_t ip);

/* Why the request that came from the address source is refused, in words for the
 * requester; or NULL: it is not. */
const char *policy_refuses(const struct tracker_request *request, struct address source);

#endif
