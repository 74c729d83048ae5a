/* regions.h - parts of a file, and sets of them.
 *
 * A region is a run of neighbouring chunks: one chunk where the file has few, else as
 * many as make REGIONS_MAX regions cover the file. What is known of a peer is known of
 * regions, so it takes the same memory for every file. A peer that refuses a chunk can
 * say which regions it holds: PROTOCOL.md, section 3. */
#ifndef REGIONS_H
#define REGIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REGIONS_MAX 2048
#define REGIONS_TEXT_MAX (REGIONS_MAX / 4 + 16)	/* bytes of a set as text, at most */

struct region_set {
	uint64_t word[REGIONS_MAX / 64];
};

/* How many chunks a region of a file has (the last may have fewer), and how many
 * regions the file has. It has at least one chunk. */
uint64_t regions_size(uint64_t chunks);
size_t regions_count(uint64_t chunks);

bool region_set_has(const struct region_set *set, size_t region);
void region_set_add(struct region_set *set, size_t region);
void region_set_remove(struct region_set *set, size_t region);

/* Writes the first count regions of the set as " regions ", a hexadecimal digit for each
 * four of them (8 stands for the first), and a newline. Returns how many bytes that
 * takes, REGIONS_TEXT_MAX at most. */
size_t region_set_encode(char text[REGIONS_TEXT_MAX], const struct region_set *set, size_t count);

/* Reads the same from the end of a message of that many bytes. False: there is no such
 * thing. */
bool region_set_decode(struct region_set *set, size_t count, const char *message, size_t size);

#endif
