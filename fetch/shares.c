/* shares.c - rendezvous hashing of regions to addresses; used by the fetcher. */
#include "fetch/shares.h"

#include <stdbool.h>
#include <stdlib.h>

/* A number as good as chance, that everybody works out alike. */
static uint64_t claim(struct address a, size_t region)
{
	uint64_t x = ((uint64_t)a.ip << 16 | a.port) * SHARES_REGIONS + region;

	for (int i = 0; i < 3; i++) {	/* any function that scatters will do */
		x ^= x >> 32;
		x *= UINT64_C(0xd6e8feb86659fd93);
	}
	return x;
}

static bool is_same(struct address a, struct address b)
{
	return a.ip == b.ip && a.port == b.port;
}

uint64_t shares_digest(const struct address sharers[], size_t count)
{
	uint64_t digest = 0;

	for (size_t i = 0; i < count; i++)
		digest += claim(sharers[i], 0);
	return digest != 0 ? digest : 1;
}

void shares_work_out(struct shares *s, const struct address sharers[], size_t count, size_t regions)
{
	s->digest = shares_digest(sharers, count);
	s->regions = regions;
	for (size_t region = 0; region < regions; region++) {
		uint64_t greatest = 0, next = 0;
		s->first[region] = s->second[region] = (struct address){0};
		for (size_t i = 0; i < count; i++) {
			uint64_t its = claim(sharers[i], region);
			if (its > greatest) {
				s->second[region] = s->first[region];
				next = greatest;
				s->first[region] = sharers[i];
				greatest = its;
			} else if (its > next) {
				s->second[region] = sharers[i];
				next = its;
			}
		}
	}
}

enum standing shares_standing(const struct shares *s, struct address whose, size_t region)
{
	if (whose.port == 0)
		return NOT_ITS;
	return is_same(s->first[region], whose) ? ITS_SHARE : is_same(s->second[region], whose) ? ITS_NEXT : NOT_ITS;
}

static int ascending(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* The numbers that are sorted have the standing on top, the region at the bottom,
 * and between them as much of the claim as there is room for. */
void shares_order(const struct shares *s, struct address whose, struct order *order)
{
	uint64_t key[SHARES_REGIONS];

	for (size_t region = 0; region < s->regions; region++) {
		uint64_t claim_last = ~claim(whose, region) >> 2 & ~(uint64_t)(SHARES_REGIONS - 1);
		key[region] = (uint64_t)shares_standing(s, whose, region) << 62 | claim_last | region;
	}
	qsort(key, s->regions, sizeof key[0], ascending);
	for (size_t i = 0; i < s->regions; i++)
		order->region[i] = (uint16_t)(key[i] % SHARES_REGIONS);
	order->place = 0;
	order->chunk = 0;
	order->digest = s->digest;
}

void shares_file_order(const struct shares *s, size_t from, struct order *order)
{
	for (size_t i = 0; i < s->regions; i++)
		order->region[i] = (uint16_t)((from + i) % s->regions);
	order->place = 0;
	order->chunk = 0;
	order->digest = s->digest;
}
