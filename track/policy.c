/* policy.c - what the tracker's operator allows. */
#include "track/policy.h"

#include <stdlib.h>
#include <string.h>

#include "csapp.h"

static uint8_t (*tracked)[SHA256_HASH_SIZE];
static size_t tracked_count;			/* 0: any file is tracked */
static bool is_sorted;				/* tracked is */
static uint32_t *good_ips;
static size_t good_ip_count;
static bool ban_private;

static int compare_hashes(const void *a, const void *b)
{
	return memcmp(a, b, SHA256_HASH_SIZE);
}

void policy_track_file(const uint8_t cascade_hash[SHA256_HASH_SIZE])
{
	tracked = Realloc(tracked, (tracked_count + 1) * sizeof *tracked);
	memcpy(tracked[tracked_count++], cascade_hash, SHA256_HASH_SIZE);
	is_sorted = false;
}

void policy_vouch_for(uint32_t ip)
{
	good_ips = Realloc(good_ips, (good_ip_count + 1) * sizeof *good_ips);
	good_ips[good_ip_count++] = ip;
}

void policy_ban_private(void)
{
	ban_private = true;
}

bool policy_is_good(uint32_t ip)
{
	for (size_t i = 0; i < good_ip_count; i++)
		if (good_ips[i] == ip)
			return true;
	return false;
}

static bool is_tracked(const uint8_t hash[SHA256_HASH_SIZE])
{
	if (tracked_count == 0)
		return true;
	if (!is_sorted)
		qsort(tracked, tracked_count, sizeof *tracked, compare_hashes);
	is_sorted = true;
	return bsearch(hash, tracked, tracked_count, sizeof *tracked, compare_hashes) != NULL;
}

/* RFC 1918, and the loopback and link-local ranges of RFC 6890. */
static bool is_private(uint32_t ip)
{
	return ip >> 24 == 10 || ip >> 20 == (172 << 4 | 1) || ip >> 16 == (192 << 8 | 168) ||
	       ip >> 24 == 127 || ip >> 16 == (169 << 8 | 254);
}

static const char *refuse_subscription(struct address self, struct address source)
{
	if (self.port == 0)
		return "a peer can't listen on port 0";
	if (self.ip == 0)
		return "a peer can't be reached at 0.0.0.0";
	if (ban_private && is_private(self.ip))
		return "this tracker refuses private addresses";
	if (policy_is_good(self.ip) && self.ip != source.ip)
		return "that address may subscribe only from itself";
	return NULL;
}

const char *policy_refuses(const struct tracker_request *request, struct address source)
{
	if (!is_tracked(request->cascade_hash))
		return "this tracker doesn't track that file";
	return request->command == TRACKER_SUBSCRIBE ? refuse_subscription(request->self, source) : NULL;
}
