/* Who fetches which part of a file first. */
#include <string.h>

#include "fetch/shares.h"
#include "unit.h"

#define REGIONS SHARES_REGIONS
#define SHARERS 8

static const struct address stranger = {.ip = 0x0a000063, .port = 5000};
static struct address sharers[SHARERS];	/* 10.0.0.1:5000 and so on */
static struct shares shares;

static size_t count(struct address whose, enum standing wanted)
{
	size_t regions = 0;

	for (size_t region = 0; region < shares.regions; region++)
		regions += shares_standing(&shares, whose, region) == wanted;
	return regions;
}

static void each_region_is_one_sharers_share_and_anothers_next(void)
{
	shares_work_out(&shares, sharers, SHARERS, REGIONS);
	for (size_t region = 0; region < REGIONS; region++) {
		size_t share = 0, next = 0;
		for (size_t i = 0; i < SHARERS; i++) {
			enum standing its = shares_standing(&shares, sharers[i], region);
			share += its == ITS_SHARE;
			next += its == ITS_NEXT;
		}
		CHECK(share == 1);
		CHECK(next == 1);
	}
}

static void shares_are_of_about_the_same_size(void)
{
	shares_work_out(&shares, sharers, SHARERS, REGIONS);
	for (size_t i = 0; i < SHARERS; i++) {
		CHECK(count(sharers[i], ITS_SHARE) > REGIONS / SHARERS / 2);
		CHECK(count(sharers[i], ITS_SHARE) < REGIONS / SHARERS * 2);
	}
}

static void who_does_not_share_has_no_share(void)
{
	const struct address unknown = {0};

	for (size_t sharing = 0; sharing <= 1; sharing++) {
		shares_work_out(&shares, sharers, sharing, REGIONS);
		CHECK(count(stranger, NOT_ITS) == REGIONS);
		CHECK(count(unknown, NOT_ITS) == REGIONS);
	}
}

static void all_is_the_share_of_one_alone(void)
{
	shares_work_out(&shares, sharers, 1, REGIONS);
	CHECK(count(sharers[0], ITS_SHARE) == REGIONS);
}

static void everybody_works_out_the_same(void)
{
	static struct shares other;
	struct address reversed[SHARERS];

	for (size_t i = 0; i < SHARERS; i++)
		reversed[i] = sharers[SHARERS - 1 - i];
	shares_work_out(&shares, sharers, SHARERS, REGIONS);
	shares_work_out(&other, reversed, SHARERS, REGIONS);
	CHECK(memcmp(&shares, &other, sizeof shares) == 0);
	CHECK(shares_digest(sharers, SHARERS) == shares_digest(reversed, SHARERS));
	CHECK(shares_digest(sharers, SHARERS) != shares_digest(sharers, SHARERS - 1));
}

static void who_leaves_gives_his_share_to_those_next(void)
{
	static struct shares before;

	shares_work_out(&before, sharers, SHARERS, REGIONS);
	shares_work_out(&shares, sharers, SHARERS - 1, REGIONS);
	for (size_t region = 0; region < REGIONS; region++) {
		bool left = shares_standing(&before, sharers[SHARERS - 1], region) == ITS_SHARE;
		enum standing had = left ? ITS_NEXT : ITS_SHARE;
		for (size_t i = 0; i < SHARERS - 1; i++)
			if (shares_standing(&shares, sharers[i], region) == ITS_SHARE)
				CHECK(shares_standing(&before, sharers[i], region) == had);
	}
}

static bool has_each_region_once(const struct order *order, size_t regions)
{
	bool seen[REGIONS] = {0};

	for (size_t i = 0; i < regions; i++) {
		if (order->region[i] >= regions || seen[order->region[i]])
			return false;
		seen[order->region[i]] = true;
	}
	return true;
}

static void an_order_has_the_share_first(void)
{
	static struct order order;
	const size_t sizes[] = {1, 2, 31, REGIONS};

	for (size_t i = 0; i < LENGTH(sizes); i++) {
		shares_work_out(&shares, sharers, SHARERS, sizes[i]);
		shares_order(&shares, sharers[3], &order);
		CHECK(has_each_region_once(&order, sizes[i]));
		for (size_t at = 1; at < sizes[i]; at++)
			CHECK(shares_standing(&shares, sharers[3], order.region[at - 1]) <=
			      shares_standing(&shares, sharers[3], order.region[at]));
	}
}

/* What one fetched while it knew of nobody, others look for first when they do. */
static void what_is_first_alone_is_in_the_share_of_many(void)
{
	static struct order alone;
	size_t in_share = 0;

	shares_work_out(&shares, &sharers[3], 1, REGIONS);
	shares_order(&shares, sharers[3], &alone);
	shares_work_out(&shares, sharers, SHARERS, REGIONS);
	for (size_t i = 0; i < REGIONS / SHARERS / 4; i++)
		in_share += shares_standing(&shares, sharers[3], alone.region[i]) == ITS_SHARE;
	CHECK(in_share > REGIONS / SHARERS / 4 * 3 / 4);
}

static void orders_of_two_differ(void)
{
	static struct order one, other;

	shares_work_out(&shares, NULL, 0, REGIONS);
	shares_order(&shares, sharers[0], &one);
	shares_order(&shares, sharers[1], &other);
	CHECK(memcmp(one.region, other.region, sizeof one.region) != 0);
}

static void the_files_order_begins_anywhere_and_wraps_round(void)
{
	static struct order order;

	shares_work_out(&shares, NULL, 0, 31);
	shares_file_order(&shares, 30, &order);
	CHECK(order.region[0] == 30);
	CHECK(order.region[1] == 0);
	CHECK(order.region[30] == 29);
}

int main(void)
{
	for (uint32_t i = 0; i < SHARERS; i++)
		sharers[i] = (struct address){.ip = 0x0a000001 + i, .port = 5000};
	RUN(each_region_is_one_sharers_share_and_anothers_next);
	RUN(shares_are_of_about_the_same_size);
	RUN(who_does_not_share_has_no_share);
	RUN(all_is_the_share_of_one_alone);
	RUN(everybody_works_out_the_same);
	RUN(who_leaves_gives_his_share_to_those_next);
	RUN(an_order_has_the_share_first);
	RUN(what_is_first_alone_is_in_the_share_of_many);
	RUN(orders_of_two_differ);
	RUN(the_files_order_begins_anywhere_and_wraps_round);
	return unit_result();
}
