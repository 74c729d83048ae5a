/* refusal.c - run by the serving parent's children. */
#include "serve/refusal.h"

#include <string.h>

size_t refusal_write(char message[REFUSAL_MAX], const struct held *held)
{
	static const char words[] = "this peer doesn't have that chunk yet;";
	uint64_t size = regions_size(held->chunks), first = 0, end;
	size_t count = regions_count(held->chunks);
	struct region_set whole = {0};

	for (size_t region = 0; region < count; region++, first = end) {
		end = first + size < held->chunks ? first + size : held->chunks;
		if (held_has_all(held, first, end))
			region_set_add(&whole, region);
	}
	memcpy(message, words, sizeof words - 1);
	return sizeof words - 1 + region_set_encode(message + sizeof words - 1, &whole, count);
}
