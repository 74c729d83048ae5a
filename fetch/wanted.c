/* wanted.c - a bit for each chunk, a count for each region; used by the fetcher. */
#include "fetch/wanted.h"

#include <stdlib.h>

static uint64_t region_end(const struct wanted *w, size_t region)
{
	return region + 1 == w->regions ? w->chunks : (region + 1) * w->region_size;
}

int wanted_init(struct wanted *w, uint64_t chunks)
{
	*w = (struct wanted){
		.chunks = chunks, .count = chunks,
		.region_size = regions_size(chunks), .regions = regions_count(chunks),
	};
	w->taken = calloc((size_t)(chunks / 64 + 1), sizeof w->taken[0]);
	w->in_region = calloc(w->regions, sizeof w->in_region[0]);
	if (w->taken == NULL || w->in_region == NULL) {
		wanted_free(w);
		return -1;
	}
	for (size_t region = 0; region < w->regions; region++) {
		w->in_region[region] = region_end(w, region) - region * w->region_size;
		region_set_add(&w->some, region);
	}
	return 0;
}

void wanted_free(struct wanted *w)
{
	free(w->taken);
	free(w->in_region);
}

bool wanted_has(const struct wanted *w, uint64_t chunk)
{
	return !(w->taken[chunk / 64] >> chunk % 64 & 1);
}

size_t wanted_region(const struct wanted *w, uint64_t chunk)
{
	return (size_t)(chunk / w->region_size);
}

void wanted_take(struct wanted *w, uint64_t chunk)
{
	size_t region = wanted_region(w, chunk);

	w->taken[chunk / 64] |= UINT64_C(1) << chunk % 64;
	w->count--;
	if (--w->in_region[region] == 0)
		region_set_remove(&w->some, region);
}

void wanted_give_back(struct wanted *w, uint64_t chunk)
{
	size_t region = wanted_region(w, chunk);

	w->taken[chunk / 64] &= ~(UINT64_C(1) << chunk % 64);
	w->count++;
	w->in_region[region]++;
	region_set_add(&w->some, region);
}

uint64_t wanted_in_region(const struct wanted *w, size_t region, uint64_t after)
{
	uint64_t first = region * w->region_size, end = region_end(w, region), chunk = first + after;

	for (;;) {
		if (chunk >= end)
			chunk = first;
		if (wanted_has(w, chunk))
			return chunk;
		chunk += chunk % 64 == 0 && w->taken[chunk / 64] == UINT64_MAX ? 64 : 1;
	}
}
