/* policy.h - what the tracker's operator allows: which files are tracked, which peers
 * are vouched for, and which may subscribe. */
#ifndef POLICY_H
#define POLICY_H

#include <stdbool.h>
#include <stdint.h>

#include "net/wire.h"

/* To be called before the first request. Each ends the program if there is no memory.
 * If no file is named, all files are tracked. */
void policy_track_file(const uint8_t cascade_hash[SHA256_HASH_SIZE]);
void policy_vouch_for(uint32_t ip);
void policy_ban_private(void);

/* Whether peers at that IPv4 address are vouched for. */
bool policy_is_good(uint32_t ip);

/* Returns why the request is refused, in words for the requester; or NULL if it isn't.
 * source: the address that it came from. */
const char *policy_refuses(const struct tracker_request *request, struct address source);

#endif
