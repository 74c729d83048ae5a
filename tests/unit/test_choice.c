/* Which chunk a peer is asked for. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* wanted.c is included, not linked, so that its memory can be missing, and is watched. */
static void *calloc_for_test(size_t count, size_t size);
static void free_for_test(void *p);
#define calloc calloc_for_test
#define free free_for_test
#include "fetch/wanted.c"
#undef calloc
#undef free

#include "fetch/choice.h"
#include "unit.h"

#define REGIONS 256
#define SHARERS 8

static struct address sharers[SHARERS];	/* 10.0.0.1:5000 and so on */
static struct choice choice;

/* ---- Memory ---- */

static int callocs_that_work = INT_MAX;	/* until none does any more */
static int allocated;			/* pieces that were not freed */

#define GUARD UINT64_C(0xa5a5a5a5a5a5a5a5)	/* in the word before a piece, and in the one after it */

static void *calloc_for_test(size_t count, size_t size)
{
	uint64_t *piece = callocs_that_work-- > 0 ? calloc(2 + (count * size + 7) / 8 + 1, 8) : NULL;

	if (piece == NULL)
		return NULL;
	piece[0] = (count * size + 7) / 8;
	piece[1] = piece[2 + piece[0]] = GUARD;
	allocated++;
	return piece + 2;
}

static void free_for_test(void *p)
{
	uint64_t *piece = p;

	if (piece == NULL)
		return;
	CHECK(piece[-1] == GUARD && piece[piece[-2]] == GUARD);
	allocated--;
	free(piece - 2);
}

static void without_memory_there_is_no_choice(void)
{
	for (int works = 0; works < 2; works++) {
		callocs_that_work = works;
		CHECK(choice_begin(&choice, REGIONS, sharers[0], ORDER_ASCENDING) == -1 && allocated == 0);
		callocs_that_work = INT_MAX;
	}
}

static void all_memory_is_freed(void)
{
	CHECK(allocated == 0);
}

/* ---- Choosing ---- */

static void begin(uint64_t chunks, enum choice_order order)
{
	CHECK(choice_begin(&choice, chunks, sharers[0], order) == 0);
}

/* The chunks that a peer is asked for, one after the other, until there are no more. */
static size_t ask_for_all(const struct holding *h, bool only_ours, uint64_t chunks[])
{
	size_t count = 0;

	while (count < choice.wanted.chunks && choice_find(&choice, h, only_ours, &chunks[count]))
		choice_take(&choice, chunks[count++]);
	return count;
}

static void each_chunk_is_found_once_in_each_order(void)
{
	static const enum choice_order orders[] = {ORDER_BY_CLAIM, ORDER_FROM_ANYWHERE, ORDER_ASCENDING};
	static const uint64_t counts[] = {1, REGIONS, REGIONS_MAX};
	const struct holding full = {0};
	uint64_t chunks[REGIONS_MAX];

	for (size_t i = 0; i < LENGTH(orders) * LENGTH(counts); i++) {
		enum choice_order order = orders[i % LENGTH(orders)];
		uint64_t count = counts[i / LENGTH(orders)];
		bool seen[REGIONS_MAX] = {0};
		begin(count, order);
		CHECK(ask_for_all(&full, false, chunks) == count);
		for (size_t at = 0; at < count; at++) {
			CHECK(!seen[chunks[at]]);
			seen[chunks[at]] = true;
			CHECK(order != ORDER_ASCENDING || chunks[at] == at);
			CHECK(order != ORDER_FROM_ANYWHERE || at == 0 || chunks[at] == (chunks[at - 1] + 1) % count);
		}
		choice_end(&choice);
	}
}

/* Whoever works out another's claims must find what that one has: another version, too. */
static void claims_are_always_the_same(void)
{
	static const uint64_t order[] = {11, 9, 15, 1, 13, 4, 5, 12, 7, 10, 6, 2, 0, 3, 14, 8};
	static const uint64_t greater_of_second[] = {0, 2, 3, 6, 7, 8, 10, 13};
	const struct holding full = {0};
	struct holding second = {0};
	uint64_t chunks[LENGTH(order)], count = 0;

	begin(LENGTH(order), ORDER_BY_CLAIM);
	CHECK(ask_for_all(&full, false, chunks) == LENGTH(order) && memcmp(chunks, order, sizeof order) == 0);
	choice_share(&choice, &second, sharers[1], true);
	for (size_t region = 0; region < LENGTH(order); region++)
		if (choice.greater[region] == 1)
			CHECK(count < LENGTH(greater_of_second) && greater_of_second[count++] == region);
	CHECK(count == LENGTH(greater_of_second));
	choice_share(&choice, &second, sharers[1], false);
	for (size_t region = 0; region < REGIONS_MAX; region++)
		CHECK(choice.greater[region] == 0);
	choice_end(&choice);
}

static void orders_of_two_fetchers_differ(void)
{
	static struct choice other;

	begin(REGIONS, ORDER_BY_CLAIM);
	CHECK(choice_begin(&other, REGIONS, sharers[1], ORDER_BY_CLAIM) == 0);
	CHECK(memcmp(choice.order, other.order, sizeof choice.order) != 0);
	choice_end(&choice);
	choice_end(&other);
}

static void a_chunk_that_is_given_back_is_found_again(void)
{
	const struct holding full = {0};
	uint64_t chunks[REGIONS], again;

	begin(REGIONS, ORDER_BY_CLAIM);
	ask_for_all(&full, false, chunks);
	choice_give_back(&choice, chunks[3]);
	CHECK(choice_find(&choice, &full, false, &again) && again == chunks[3]);
	choice_end(&choice);
}

/* Works out the shares of all sharers; returns how many of them each region belongs to. */
static void count_owners(size_t sharing, unsigned owners[REGIONS], size_t shares[SHARERS])
{
	const struct holding full = {0};

	memset(owners, 0, REGIONS * sizeof owners[0]);
	for (size_t i = 0; i < sharing; i++) {
		uint64_t chunks[REGIONS];
		struct holding holdings[SHARERS] = {0};
		CHECK(choice_begin(&choice, REGIONS, sharers[i], ORDER_BY_CLAIM) == 0);
		for (size_t other = 0; other < sharing; other++)
			if (other != i)
				choice_share(&choice, &holdings[other], sharers[other], true);
		shares[i] = ask_for_all(&full, true, chunks);
		for (size_t at = 0; at < shares[i]; at++)
			owners[chunks[at]]++;
		choice_end(&choice);
	}
}

static void each_region_is_the_share_of_one(void)
{
	unsigned owners[REGIONS];
	size_t shares[SHARERS];

	count_owners(SHARERS, owners, shares);
	for (size_t region = 0; region < REGIONS; region++)
		CHECK(owners[region] == 1);
	for (size_t i = 0; i < SHARERS; i++)
		CHECK(shares[i] > REGIONS / SHARERS / 3 && shares[i] < REGIONS / SHARERS * 3);
	count_owners(1, owners, shares);
	CHECK(shares[0] == REGIONS);
}

static void who_leaves_gives_his_share_away(void)
{
	const struct holding full = {0};
	struct holding other = {0};
	uint64_t chunks[REGIONS];

	begin(REGIONS, ORDER_BY_CLAIM);
	choice_share(&choice, &other, sharers[1], true);
	choice_share(&choice, &other, sharers[1], true);	/* once is enough */
	CHECK(ask_for_all(&full, true, chunks) < REGIONS);
	choice_forget(&choice, &other, sharers[1]);
	CHECK(choice_find(&choice, &full, true, chunks));
	choice_end(&choice);
}

static void what_another_holds_is_not_ours_alone(void)
{
	const struct holding full = {0};
	struct holding partial = {0};
	struct region_set held = {0};
	uint64_t chunks[REGIONS];

	begin(REGIONS, ORDER_BY_CLAIM);
	for (size_t region = 0; region < REGIONS / 2; region++)
		region_set_add(&held, region);
	choice_refused(&choice, &partial, REGIONS - 1, &held);
	CHECK(ask_for_all(&full, true, chunks) == REGIONS / 2);
	CHECK(choice_find(&choice, &full, false, chunks));
	choice_end(&choice);
}

static void who_says_what_it_holds_is_asked_for_that(void)
{
	struct holding partial = {0};
	struct region_set held = {0};
	uint64_t chunks[REGIONS];

	begin(REGIONS, ORDER_BY_CLAIM);
	region_set_add(&held, 5);
	region_set_add(&held, 77);
	choice_refused(&choice, &partial, 3, &held);
	CHECK(ask_for_all(&partial, false, chunks) == 2);
	CHECK(chunks[0] + chunks[1] == 5 + 77);
	CHECK(choice_may_have(&choice, &partial, 5) && !choice_may_have(&choice, &partial, 6));
	choice_forget_lacks(&partial);		/* from now on it may have anything */
	CHECK(choice_find(&choice, &partial, false, chunks));
	choice_end(&choice);
}

static void what_was_refused_is_not_held_whatever_is_said(void)
{
	struct holding partial = {0};
	struct region_set held = {0};
	uint64_t chunk;

	begin(REGIONS, ORDER_BY_CLAIM);
	region_set_add(&held, 5);
	choice_refused(&choice, &partial, 5, &held);
	CHECK(!choice_find(&choice, &partial, false, &chunk));
	CHECK(choice.holders[5] == 0);
	choice_end(&choice);
}

static void who_says_nothing_is_asked_for_what_it_did_not_refuse(void)
{
	struct holding partial = {0};
	uint64_t chunk;

	begin(31, ORDER_BY_CLAIM);
	for (size_t refused = 0; refused < 31; refused++) {
		CHECK(choice_find(&choice, &partial, false, &chunk));
		CHECK(choice_may_have(&choice, &partial, chunk));
		choice_refused(&choice, &partial, chunk, NULL);
		CHECK(!choice_may_have(&choice, &partial, chunk));
	}
	CHECK(!choice_find(&choice, &partial, false, &chunk));
	choice_end(&choice);
}

/* What is known is known of many chunks at once; yet each can be found. */
static void regions_of_many_chunks(void)
{
	const struct holding full = {0};
	uint64_t chunks = 5 * REGIONS_MAX + 7, chunk, found = 0, sum = 0;

	begin(chunks, ORDER_BY_CLAIM);
	CHECK(choice.wanted.region_size == 6);
	while (choice_find(&choice, &full, false, &chunk)) {
		choice_take(&choice, chunk);
		found++;
		sum += chunk;
	}
	CHECK(found == chunks && sum == chunks * (chunks - 1) / 2);
	CHECK(choice.wanted.count == 0);
	choice_end(&choice);
}

/* Each region's holders are counted, whatever a peer says first and later, until it is forgotten. */
static void holders_are_counted(void)
{
	struct holding first = {0}, second = {0};
	struct region_set held = {0};

	begin(REGIONS, ORDER_BY_CLAIM);
	region_set_add(&held, 3);
	region_set_add(&held, 200);
	CHECK(!first.partial);
	choice_refused(&choice, &first, 7, &held);
	choice_refused(&choice, &second, 7, &held);
	CHECK(first.partial && second.partial && choice.holders[3] == 2 && choice.holders[200] == 2);
	region_set_add(&held, 100);
	region_set_remove(&held, 3);
	choice_refused(&choice, &first, 8, &held);
	CHECK(choice.holders[3] == 1 && choice.holders[100] == 1 && choice.holders[200] == 2);
	choice_refused(&choice, &first, 100, NULL);	/* and what it said holds on */
	CHECK(choice.holders[3] == 1 && choice.holders[100] == 0 && choice.holders[200] == 2);
	CHECK(!choice_may_have(&choice, &first, 100) && choice_may_have(&choice, &first, 200));
	choice_forget(&choice, &first, sharers[1]);
	choice_forget(&choice, &first, sharers[1]);
	CHECK(choice.holders[3] == 1 && choice.holders[200] == 1 && choice_may_have(&choice, &first, 100));
	choice_forget(&choice, &second, sharers[2]);
	for (size_t region = 0; region < REGIONS_MAX; region++)
		CHECK(choice.holders[region] == 0 && !region_set_has(&second.has, region));
	choice_end(&choice);
}

/* ---- What is wanted ---- */

static void what_is_wanted_is_counted(void)
{
	struct wanted w;

	CHECK(wanted_init(&w, 2 * REGIONS_MAX + 1) == 0 && w.region_size == 3 && w.count == 2 * REGIONS_MAX + 1);
	for (uint64_t chunk = 3; chunk < 6; chunk++) {
		CHECK(region_set_has(&w.some, 1) && wanted_has(&w, chunk) && w.in_region[1] == 6 - chunk);
		wanted_take(&w, chunk);
		CHECK(!wanted_has(&w, chunk) && w.count == 2 * REGIONS_MAX + 1 - (chunk - 2));
	}
	CHECK(!region_set_has(&w.some, 1) && w.in_region[0] == 3);
	CHECK(w.in_region[w.regions - 1] == (2 * REGIONS_MAX + 1) % 3);
	wanted_give_back(&w, 4);
	CHECK(region_set_has(&w.some, 1) && w.in_region[1] == 1 && w.count == 2 * REGIONS_MAX - 1);
	CHECK(wanted_has(&w, 4) && !wanted_has(&w, 3) && !wanted_has(&w, 5));
	wanted_free(&w);
}

/* From anywhere in a region on, and from its beginning after its end. */
static void a_region_is_searched(void)
{
	enum { SIZE = 200, CHUNKS = (REGIONS_MAX - 1) * SIZE + 130 };
	static const struct {
		size_t region;
		uint64_t after, found[3];	/* chunks of the region */
	} known[] = {
		{1, 0, {3, 70, 199}}, {1, 3, {3, 70, 199}}, {1, 4, {70, 199, 3}}, {1, 70, {70, 199, 3}},
		{1, 71, {199, 3, 70}}, {1, 199, {199, 3, 70}},
		{REGIONS_MAX - 1, 0, {0, 64, 129}}, {REGIONS_MAX - 1, 65, {129, 0, 64}},
		{REGIONS_MAX - 1, 130, {0, 64, 129}}, {REGIONS_MAX - 1, 199, {0, 64, 129}},
	};
	struct wanted w;

	CHECK(wanted_init(&w, CHUNKS) == 0 && w.region_size == SIZE && w.regions == REGIONS_MAX);
	for (uint64_t chunk = 0; chunk < CHUNKS; chunk++)
		wanted_take(&w, chunk);
	for (size_t i = 0; i < LENGTH(known); i++) {
		uint64_t first = known[i].region * SIZE;
		for (size_t at = 0; at < 3; at++)
			wanted_give_back(&w, first + known[i].found[at]);
		for (size_t at = 0; at < 3; at++) {
			CHECK(wanted_in_region(&w, known[i].region, known[i].after) == first + known[i].found[at]);
			wanted_take(&w, first + known[i].found[at]);
		}
	}
	CHECK(w.count == 0);
	wanted_free(&w);
}

/* ---- Sets of regions as text ---- */

static void a_set_is_read_as_it_was_written(void)
{
	static const size_t counts[] = {1, 3, 4, 5, 64, 127, REGIONS_MAX};
	char message[REGIONS_TEXT_MAX + 8] = "refused:";

	for (size_t i = 0; i < LENGTH(counts); i++) {
		struct region_set set = {0}, same;
		for (size_t region = 0; region < counts[i]; region += 1 + region % 3)
			region_set_add(&set, region);
		size_t size = 8 + region_set_encode(message + 8, &set, counts[i]);
		CHECK(region_set_decode(&same, counts[i], message, size));
		CHECK(memcmp(&set, &same, sizeof set) == 0);
		CHECK(size <= sizeof message && message[size - 1] == '\n');
	}
}

static void what_is_no_set_is_refused(void)
{
	static const char *const messages[] = {
		"", "\n", "not yet\n", " regions \n", " regions 8\n", " regions 800\n", " regions 8g\n", " regions 8G\n",
		" regions 80", "regions 80\n", " region 80\n", " regions 8 \n", " regions 80\n\n",
	};
	struct region_set set;

	for (size_t i = 0; i < LENGTH(messages); i++)
		CHECK(!region_set_decode(&set, 8, messages[i], strlen(messages[i])));
	CHECK(!region_set_decode(&set, 8, " regions \0" "0\n", 12));
	CHECK(region_set_decode(&set, 8, "no; regions 81\n", 15));
	CHECK(region_set_has(&set, 0) && region_set_has(&set, 7) && !region_set_has(&set, 1));
}

int main(void)
{
	for (uint32_t i = 0; i < SHARERS; i++)
		sharers[i] = (struct address){.ip = 0x0a000001 + i, .port = 5000};
	RUN(without_memory_there_is_no_choice);
	RUN(each_chunk_is_found_once_in_each_order);
	RUN(orders_of_two_fetchers_differ);
	RUN(a_chunk_that_is_given_back_is_found_again);
	RUN(each_region_is_the_share_of_one);
	RUN(who_leaves_gives_his_share_away);
	RUN(what_another_holds_is_not_ours_alone);
	RUN(who_says_what_it_holds_is_asked_for_that);
	RUN(what_was_refused_is_not_held_whatever_is_said);
	RUN(who_says_nothing_is_asked_for_what_it_did_not_refuse);
	RUN(regions_of_many_chunks);
	RUN(claims_are_always_the_same);
	RUN(holders_are_counted);
	RUN(what_is_wanted_is_counted);
	RUN(a_region_is_searched);
	RUN(all_memory_is_freed);
	RUN(a_set_is_read_as_it_was_written);
	RUN(what_is_no_set_is_refused);
	return unit_result();
}
