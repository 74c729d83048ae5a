/* test_crowd.c - to how many a fetcher is connected where very many hold parts. Time and
 * connections are made here. */
#include "fetch/swarm.h"

#include <stdlib.h>

#include "dial_common.h"
#include "unit.h"

enum { CHUNK = 1000, CHUNKS = 100, CROWD = SHARERS_MAX + 20, TICK_MS = 50 };

static const uint8_t hash[SHA256_HASH_SIZE];
static struct swarm swarm;
static int64_t now = 1000000;
static bool is_seeder[CROWD];	/* it delivers; the others have nothing, and say so */

/* ---- in place of fetch/dial.c -------------------------------------------------- */

int connection_open(struct connection *c, struct address to, int64_t now_ms)
{
	connection_begin(c, (int)to.port, now_ms);
	c->connecting = true;
	return 0;
}

/* ---- what happens -------------------------------------------------------------- */

static void answer(struct peer *p)
{
	static const struct region_set nothing;

	if (p->connection.connecting) {
		swarm_connecting_ended(&swarm, p, now);
	} else if (p->connection.asked_count > 0 && !is_seeder[p->address.port - 1]) {
		swarm_chunk_refused(&swarm, p, &nothing, now);
		swarm_answered(&swarm, p, now);
	}
}

static void pass(int64_t ms)
{
	for (int64_t end = now + ms; now < end; now += TICK_MS) {
		for (size_t i = 0; i < swarm.count; i++)
			answer(&swarm.peers[i]);
		swarm_manage(&swarm, now);
	}
}

static void begin(size_t seeders)
{
	struct tracker_entry entries[CROWD];
	bool news;

	swarm_end(&swarm, now);
	if (swarm_begin(&swarm, CHUNK * CHUNKS, CHUNK, hash, &(struct swarm_options){.time_scale = 1}) < 0)
		abort();
	for (size_t i = 0; i < CROWD; i++) {
		is_seeder[i] = i < seeders;
		entries[i] = (struct tracker_entry){.address = {.ip = 0x0a000001, .port = (uint16_t)(i + 1)}};
	}
	CHECK(swarm_add_entries(&swarm, entries, CROWD, &news) == CROWD);
}

static size_t spare(void)
{
	size_t count = 0;

	for (size_t i = 0; i < swarm.count; i++)
		count += peer_is_spare(&swarm.peers[i]);
	return count;
}

/* Each has to be asked to know that it holds parts. Then some of them are left. */
static void test_of_those_that_hold_parts_some_stay(void)
{
	begin(0);
	swarm_manage(&swarm, now);
	CHECK(swarm_connected(&swarm) == CROWD);
	pass(1000);
	CHECK(swarm_connected(&swarm) == SHARERS_MAX && spare() == CROWD - SHARERS_MAX);
	for (size_t i = 0; i < swarm.count; i++)
		CHECK(peer_is_spare(&swarm.peers[i]) != peer_is_connected(&swarm.peers[i]));
}

static void test_who_holds_everything_stays(void)
{
	begin(10);
	pass(1000);
	CHECK(swarm_connected(&swarm) == SHARERS_MAX + 10);
	for (size_t i = 0; i < 10; i++)
		CHECK(peer_is_connected(&swarm.peers[i]));
}

/* Else those that have nothing would keep it from asking those that have. */
static void test_who_refuses_again_and_again_makes_room(void)
{
	begin(0);
	pass(1000);
	pass(60000);	/* each has refused 64 times in a row */
	CHECK(swarm_connected(&swarm) == CROWD && spare() == 0);
}

int main(void)
{
	RUN(test_of_those_that_hold_parts_some_stay);
	RUN(test_who_holds_everything_stays);
	RUN(test_who_refuses_again_and_again_makes_room);
	swarm_end(&swarm, now);
	return unit_result();
}
