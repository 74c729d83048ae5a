/* wanted.c - a bit for each chunk; used by the fetcher. */
#include "fetch/wanted.h"

#include <stdlib.h>

int wanted_init(struct wanted *w, uint64_t chunks)
{
	*w = (struct wanted){.chunks = chunks, .count = chunks};
	w->taken = calloc((size_t)(chunks / 64 + 1), sizeof w->taken[0]);
	return w->taken != NULL ? 0 : -1;
}

void wanted_free(struct wanted *w)
{
	free(w->taken);
	w->taken = NULL;
}

bool wanted_has(const struct wanted *w, uint64_t chunk)
{
	return !(w->taken[chunk / 64] >> chunk % 64 & 1);
}

void wanted_take(struct wanted *w, uint64_t chunk)
{
	w->taken[chunk / 64] |= UINT64_C(1) << chunk % 64;
	w->count--;
}

void wanted_give_back(struct wanted *w, uint64_t chunk)
{
	w->taken[chunk / 64] &= ~(UINT64_C(1) << chunk % 64);
	w->count++;
	w->given_back++;
}

uint64_t wanted_next(const struct wanted *w, uint64_t from, uint64_t end)
{
	uint64_t chunk = from;

	while (chunk < end && !wanted_has(w, chunk))
		chunk += chunk % 64 == 0 && w->taken[chunk / 64] == UINT64_MAX ? 64 : 1;
	return chunk < end ? chunk : end;
}
