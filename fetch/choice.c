/* choice.c - which chunk a peer is asked for; used by the fetcher. */
#include "fetch/choice.h"

#include <stdlib.h>
#include <string.h>

uint64_t choice_claim(struct address a, uint64_t region)
{
	uint64_t x = ((uint64_t)a.ip << 16 | a.port) * REGIONS_MAX + region;

	for (int i = 0; i < 3; i++) {	/* any function that scatters will do */
		x ^= x >> 32;
		x *= UINT64_C(0xd6e8feb86659fd93);
	}
	return x;
}

static int ascending(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* The numbers that are sorted have the region at the bottom, and above it as much of
 * the claim as there is room for. */
static void order_by_claim(struct choice *c)
{
	uint64_t key[REGIONS_MAX];

	for (size_t region = 0; region < c->wanted.regions; region++)
		key[region] = (~choice_claim(c->self, region) & ~(uint64_t)(REGIONS_MAX - 1)) | region;
	qsort(key, c->wanted.regions, sizeof key[0], ascending);
	for (size_t i = 0; i < c->wanted.regions; i++)
		c->order[i] = (uint16_t)(key[i] % REGIONS_MAX);
}

int choice_begin(struct choice *c, uint64_t chunks, struct address self, enum choice_order order)
{
	*c = (struct choice){.self = self};
	if (wanted_init(&c->wanted, chunks) < 0)
		return -1;
	size_t regions = c->wanted.regions, first = order == ORDER_ASCENDING ? 0 : (size_t)random() % regions;
	for (size_t i = 0; i < regions; i++)
		c->order[i] = (uint16_t)((first + i) % regions);
	if (order == ORDER_BY_CLAIM)
		order_by_claim(c);
	return 0;
}

void choice_end(struct choice *c)
{
	wanted_free(&c->wanted);
}

void choice_take(struct choice *c, uint64_t chunk)
{
	wanted_take(&c->wanted, chunk);
	while (c->exhausted < c->wanted.regions && c->wanted.in_region[c->order[c->exhausted]] == 0)
		c->exhausted++;
}

void choice_give_back(struct choice *c, uint64_t chunk)
{
	wanted_give_back(&c->wanted, chunk);
	c->exhausted = 0;
}

void choice_share(struct choice *c, struct holding *h, struct address peer, bool shares)
{
	if (h->shares == shares)
		return;
	h->shares = shares;
	for (size_t region = 0; region < c->wanted.regions; region++)
		if (choice_claim(peer, region) > choice_claim(c->self, region))
			c->greater[region] = (uint16_t)(shares ? c->greater[region] + 1 : c->greater[region] - 1);
}

/* The regions of which something is wanted, and which are in has (NULL: whichever) and
 * not in lacks. False: there is none. */
static bool candidates(struct region_set *set, const struct choice *c, const struct region_set *has,
		       const struct region_set *lacks)
{
	uint64_t any = 0;

	for (size_t i = 0; i < REGIONS_MAX / 64; i++) {
		set->word[i] = c->wanted.some.word[i] & ~lacks->word[i] & (has != NULL ? has->word[i] : UINT64_MAX);
		any |= set->word[i];
	}
	return any != 0;
}

static bool is_ours_alone(const struct choice *c, size_t region)
{
	return c->greater[region] == 0 && c->holders[region] == 0;
}

/* A chunk of the first region in our order that is in the set, and ours alone if it has
 * to be. */
static bool find_in_order(const struct choice *c, const struct region_set *set, bool only_ours, uint64_t *chunk)
{
	for (size_t i = c->exhausted; i < c->wanted.regions; i++) {
		size_t region = c->order[i];
		if (!region_set_has(set, region) || (only_ours && !is_ours_alone(c, region)))
			continue;
		*chunk = wanted_in_region(&c->wanted, region, 0);
		return true;
	}
	return false;
}

/* Any chunk of any region in the set, which isn't empty: what comes first in our order may
 * be just what a peer lacks that doesn't say what it holds. */
static uint64_t find_anywhere(const struct choice *c, const struct region_set *set)
{
	size_t region = (size_t)random() % c->wanted.regions;

	while (!region_set_has(set, region))
		region = (region + 1) % c->wanted.regions;
	return wanted_in_region(&c->wanted, region, (uint64_t)random() % c->wanted.region_size);
}

bool choice_find(const struct choice *c, const struct holding *h, bool only_ours, uint64_t *chunk)
{
	struct region_set set;

	if (!h->partial)
		return candidates(&set, c, NULL, &h->lacks) && find_in_order(c, &set, only_ours, chunk);
	if (candidates(&set, c, &h->has, &h->lacks))
		return find_in_order(c, &set, false, chunk);
	if (!candidates(&set, c, NULL, &h->lacks))
		return false;
	*chunk = find_anywhere(c, &set);
	return true;
}

bool choice_may_have(const struct choice *c, const struct holding *h, uint64_t chunk)
{
	return !region_set_has(&h->lacks, wanted_region(&c->wanted, chunk));
}

/* What the peer is known to hold is that from now on. */
static void set_has(struct choice *c, struct holding *h, const struct region_set *has)
{
	for (size_t region = 0; region < c->wanted.regions; region++) {
		if (h->has.word[region / 64] == has->word[region / 64]) {
			region |= 63;	/* on to the next word */
			continue;
		}
		c->holders[region] = (uint16_t)(c->holders[region] + region_set_has(has, region) -
						region_set_has(&h->has, region));
	}
	h->has = *has;
}

void choice_refused(struct choice *c, struct holding *h, uint64_t chunk, const struct region_set *held)
{
	size_t region = wanted_region(&c->wanted, chunk);
	struct region_set has = held != NULL ? *held : h->has;

	h->partial = true;
	region_set_remove(&has, region);
	set_has(c, h, &has);
	for (size_t i = 0; held != NULL && i < REGIONS_MAX / 64; i++)
		h->lacks.word[i] = ~held->word[i];
	region_set_add(&h->lacks, region);
}

void choice_forget_lacks(struct holding *h)
{
	memset(&h->lacks, 0, sizeof h->lacks);
}

void choice_forget(struct choice *c, struct holding *h, struct address peer)
{
	static const struct region_set nothing;

	set_has(c, h, &nothing);
	choice_forget_lacks(h);
	choice_share(c, h, peer, false);
}
