/* test_subscriptions.c - what the tracker remembers, and whom it names, at times and in numbers
 * that can't be had over a network: with a clock that the tests set, request by request. */
#include "base/clock.h"

#include <stdint.h>

static int64_t false_ms;
#define clock_ms() false_ms
#include "track/subscriptions.c"
#undef clock_ms

#include "unit.h"

#define MINUTE 60000		/* ms */
#define HONEST 0x7f000001u	/* the addresses that requests come from */
#define FLOOD 0x7f000002u
#define QUERIES 200

static const uint8_t *hash_of(uint32_t file)
{
	static uint8_t hash[SHA256_HASH_SIZE];

	encode_be32(hash, file * UINT32_C(2654435769));
	encode_be32(hash + 28, file);
	return hash;
}

/* A tracker that knows nobody. */
static void begin(void)
{
	memset(buckets, 0, sizeof buckets);
	subscription_count = 0;
	false_ms = 1000 * MINUTE;
	log_set_level(LOG_QUIET);
}

/* Peer n of those behind one address listens on a port of its own there. */
static struct address peer_at(uint32_t ip, unsigned n)
{
	return (struct address){ip + n / 60000, (uint16_t)(1 + n % 60000)};
}

static void subscribe_from(uint32_t source, uint32_t file, struct address peer)
{
	subscriptions_add(hash_of(file), peer, source);
}

static int list(uint32_t file, struct tracker_entry entries[SUBSCRIPTIONS_NAMED_MAX])
{
	return (int)subscriptions_pick(hash_of(file), (struct address){0}, entries);
}

static bool is_listed(struct address peer, const struct tracker_entry entries[], int count)
{
	for (int i = 0; i < count; i++)
		if (address_equal(entries[i].address, peer))
			return true;
	return false;
}

/* How many subscriptions of the source to the file there are. */
static unsigned held(uint32_t file, uint32_t source)
{
	unsigned n = 0;

	for (size_t count = find_subscriptions(hash_of(file)), i = 0; i < count; i++)
		n += found[i]->source == source;
	return n;
}

static void test_who_subscribed_lately_comes_first(void)
{
	struct tracker_entry entries[SUBSCRIPTIONS_NAMED_MAX];
	unsigned seen[30] = {0};

	begin();
	for (unsigned i = 0; i < 500; i++)
		subscribe_from(HONEST, 1, peer_at(0x0a000000, i));	/* they have ended since */
	false_ms += 12 * MINUTE;
	for (unsigned i = 0; i < 3; i++)
		subscribe_from(HONEST, 1, peer_at(0x0b000000, i));
	CHECK(list(1, entries) == 20);
	for (unsigned i = 0; i < 3; i++)
		CHECK(is_listed(peer_at(0x0b000000, i), entries, 3));
	for (unsigned i = 0; i < 30; i++)
		subscribe_from(HONEST, 1, peer_at(0x0b000000, i));
	for (unsigned q = 0; q < QUERIES; q++) {
		CHECK(list(1, entries) == 20);
		for (unsigned i = 0; i < 20; i++)
			if (CHECK(entries[i].address.ip == 0x0b000000))
				seen[entries[i].address.port - 1]++;
	}
	for (unsigned i = 0; i < 30; i++)	/* 133 of 200 are to be expected */
		CHECK(seen[i] > 80 && seen[i] < 180);
}

static void test_age(void)
{
	struct tracker_entry entries[SUBSCRIPTIONS_NAMED_MAX];
	struct address early = peer_at(0x0a000000, 0), late = peer_at(0x0a000000, 1);

	begin();
	subscribe_from(HONEST, 1, early);
	false_ms += 660000;
	subscribe_from(HONEST, 1, late);
	for (unsigned q = 0; q < QUERIES; q++)	/* not too old to be the first, by a moment */
		if (list(1, entries) == 2 && address_equal(entries[0].address, early))
			break;
	CHECK(address_equal(entries[0].address, early));
	int64_t seen = (int64_t)time(NULL) - entries[0].last_seen;
	CHECK(seen >= 659 && seen <= 661);
	false_ms += 1;
	for (unsigned q = 0; q < QUERIES; q++)
		CHECK(list(1, entries) == 2 && address_equal(entries[0].address, late));
	false_ms += 30 * MINUTE - 660001;
	CHECK(list(1, entries) == 2);
	false_ms += 1;
	CHECK(list(1, entries) == 1 && address_equal(entries[0].address, late));
	subscribe_from(HONEST, 1, early);
	CHECK(list(1, entries) == 2);
	false_ms += 31 * MINUTE;
	CHECK(list(1, entries) == 0);
}

static void test_good_peers_come_first_whatever_their_age(void)
{
	struct tracker_entry entries[SUBSCRIPTIONS_NAMED_MAX];

	begin();
	policy_vouch_for(0x0d000001);
	for (unsigned i = 0; i < 3; i++)
		subscribe_from(HONEST, 1, peer_at(0x0d000001, i));
	false_ms += 12 * MINUTE;
	subscribe_from(HONEST, 1, peer_at(0x0d000001, 3));
	for (unsigned i = 0; i < 30; i++)
		subscribe_from(HONEST, 1, peer_at(0x0a000000, i));
	CHECK(list(1, entries) == 20);
	for (unsigned i = 0; i < 20; i++)
		CHECK(entries[i].good == (i < 4) && (entries[i].address.ip == 0x0d000001) == (i < 4));
	CHECK(address_equal(entries[0].address, peer_at(0x0d000001, 3)));
}

static void test_invented_files_push_nobody_out(void)
{
	struct tracker_entry entries[SUBSCRIPTIONS_NAMED_MAX];

	begin();
	for (uint32_t file = 0; file < 3; file++)
		for (unsigned i = 0; i < 1000; i++)	/* a lab behind one address */
			subscribe_from(HONEST, file, peer_at(0x0a000000, i));
	for (uint32_t n = 0; n < SUBSCRIPTIONS_MAX + 500; n++) {
		false_ms += n % 64 == 0;
		subscribe_from(FLOOD, 100 + n, peer_at(0x0b000000, n));
	}
	for (uint32_t file = 0; file < 3; file++)
		CHECK(held(file, HONEST) == 1000 && list(file, entries) == 20);
	CHECK(subscription_count == SUBSCRIPTIONS_MAX);
	CHECK(list(100, entries) == 0);				/* its own oldest */
	CHECK(list(100 + SUBSCRIPTIONS_MAX + 499, entries) == 1);
}

static void test_invented_peers_push_nobody_out(void)
{
	struct tracker_entry entries[SUBSCRIPTIONS_NAMED_MAX];
	struct address seeder = {0x0c000001, 1};
	unsigned honest = 0;

	begin();
	for (unsigned i = 0; i < 1000; i++)
		subscribe_from(HONEST, 1, peer_at(0x0a000000, i));
	subscribe_from(seeder.ip, 1, seeder);
	for (unsigned i = 0; i < PEERS_MAX + 500; i++) {
		false_ms++;
		subscribe_from(FLOOD, 1, peer_at(0x0b000000, i));
	}
	CHECK(held(1, HONEST) == 1000);
	CHECK(held(1, seeder.ip) == 1);
	CHECK(held(1, FLOOD) == PEERS_MAX - 1001);
	for (unsigned q = 0; q < QUERIES; q++) {	/* nor do they hide anybody */
		CHECK(list(1, entries) == 20);
		CHECK(is_listed(seeder, entries, 20));
		for (unsigned i = 0; i < 20; i++)
			honest += entries[i].address.ip == 0x0a000000;
	}
	CHECK(honest > 4 * QUERIES);
}

/* Two of the same size share what there is. */
static void test_the_greedy_give_way_to_the_modest(void)
{
	begin();
	for (unsigned i = 0; i < PEERS_MAX; i++) {
		false_ms++;
		subscribe_from(HONEST, 1, peer_at(0x0a000000, i));
	}
	CHECK(held(1, HONEST) == PEERS_MAX);
	for (unsigned i = 0; i < PEERS_MAX; i++) {
		false_ms++;
		subscribe_from(FLOOD, 1, peer_at(0x0b000000, i));
	}
	CHECK(held(1, HONEST) >= PEERS_MAX / 2 - 1 && held(1, HONEST) <= PEERS_MAX / 2 + 1);
	CHECK(held(1, FLOOD) == PEERS_MAX - held(1, HONEST));
}

/* Where everybody has one subscription, the oldest goes. */
static void test_a_crowd_of_equals(void)
{
	begin();
	for (unsigned i = 0; i < PEERS_MAX + 10; i++) {
		false_ms++;
		subscribe_from(0x0a000000 + i, 1, peer_at(0x0a000000, i));
	}
	for (unsigned i = 0; i < PEERS_MAX + 10; i += i < 20 ? 1 : 500)
		CHECK(held(1, 0x0a000000 + i) == (i >= 10));
}

static void test_the_expired_give_way_first(void)
{
	begin();
	for (unsigned i = 0; i < 10; i++)
		subscribe_from(HONEST, 1, peer_at(0x0a000000, i));
	false_ms += 31 * MINUTE;
	for (unsigned i = 0; i < PEERS_MAX; i++)
		subscribe_from(FLOOD, 1, peer_at(0x0b000000, i));
	CHECK(held(1, HONEST) == 0 && held(1, FLOOD) == PEERS_MAX);
}

/* To name somebody else's peer neither removes it nor makes it one's own. */
static void test_sources_do_not_touch_each_others_subscriptions(void)
{
	struct tracker_entry entries[SUBSCRIPTIONS_NAMED_MAX];

	begin();
	for (unsigned i = 0; i < 50; i++)
		subscribe_from(HONEST, 1, peer_at(0x0a000000, i));
	for (unsigned i = 0; i < 50; i++)
		subscribe_from(FLOOD, 1, peer_at(0x0a000000, i));
	for (unsigned i = 0; i < PEERS_MAX + 500; i++) {
		false_ms++;
		subscribe_from(FLOOD, 1, peer_at(0x0b000000, i));
	}
	CHECK(held(1, HONEST) == 50);
	begin();
	subscribe_from(HONEST, 1, peer_at(0x0a000000, 0));
	subscribe_from(FLOOD, 1, peer_at(0x0a000000, 0));
	CHECK(list(1, entries) == 1);		/* it is one peer */
}

/* A few with addresses of their own don't hide the many behind one. */
static void test_behind_one_address_all_are_named(void)
{
	struct tracker_entry entries[SUBSCRIPTIONS_NAMED_MAX];
	unsigned seen[300] = {0}, few = 0;

	begin();
	for (unsigned i = 0; i < 300; i++)
		subscribe_from(HONEST, 1, peer_at(0x0a000000, i));
	for (unsigned i = 0; i < 40; i++)
		subscribe_from(0x0b000000 + i, 1, (struct address){0x0b000000 + i, 7});
	for (unsigned q = 0; q < QUERIES; q++) {
		CHECK(list(1, entries) == 20);
		for (unsigned i = 0; i < 20; i++)
			if (entries[i].address.ip == 0x0a000000)
				seen[entries[i].address.port - 1]++;
			else
				few++;
	}
	CHECK(few > 8 * QUERIES && few < 13 * QUERIES);
	for (unsigned i = 0, unseen = 0; i < 300; i++) {
		unseen += seen[i] == 0;		/* 5.9 of 200 times each is to be expected */
		CHECK(unseen < 10);
	}
}

static void test_hashes_of_one_bucket_are_kept_apart(void)
{
	struct tracker_entry entries[SUBSCRIPTIONS_NAMED_MAX];

	begin();
	for (uint32_t file = 0; file < 3000; file++)
		subscribe_from(HONEST, file, peer_at(0x0a000000, file));
	for (uint32_t file = 0; file < 3000; file++)
		CHECK(list(file, entries) == 1 && address_equal(entries[0].address, peer_at(0x0a000000, file)));
}

int main(void)
{
	log_program("tracker");
	subscriptions_begin(0x2545f491);
	RUN(test_who_subscribed_lately_comes_first);
	RUN(test_age);
	RUN(test_good_peers_come_first_whatever_their_age);
	RUN(test_invented_files_push_nobody_out);
	RUN(test_invented_peers_push_nobody_out);
	RUN(test_the_greedy_give_way_to_the_modest);
	RUN(test_a_crowd_of_equals);
	RUN(test_the_expired_give_way_first);
	RUN(test_sources_do_not_touch_each_others_subscriptions);
	RUN(test_behind_one_address_all_are_named);
	RUN(test_hashes_of_one_bucket_are_kept_apart);
	return unit_result();
}
