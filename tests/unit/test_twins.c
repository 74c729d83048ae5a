/* test_twins.c - when a peer is asked over more than one connection. The swarm is the real
 * one; time and connections are made here: a line that carries so much, and each connection
 * no more than a window in a round trip. */
#include "fetch/swarm.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

#include "base/log.h"
#include "dial_common.h"
#include "unit.h"

#define TICK_MS 5
#define CHUNK (1u << 20)
#define CHUNKS UINT64_C(2048)
#define WINDOW (2400u << 10)	/* bytes in a round trip */
#define GIGABIT 117000		/* bytes in a millisecond */

static const struct address seeder = {.ip = 0x0a000001, .port = 1000}, other = {.ip = 0x0a000002, .port = 1000};
static const uint8_t hash[SHA256_HASH_SIZE];

static struct swarm swarm;
static int64_t now;
static int64_t round_trip;	/* of the line, in ms, */
static uint64_t line;		/* bytes that it carries in a millisecond */
static bool accepts_twins;	/* the seeder answers them */
static int opens_until;		/* so many more connections can be opened */
static uint64_t delivered;	/* chunks */
static size_t most;		/* connections at a time, so far */

/* ---- in place of fetch/dial.c -------------------------------------------------- */

int connection_open(struct connection *c, struct address to, int64_t now_ms)
{
	static int fd;

	if (opens_until == 0) {
		errno = EMFILE;
		return -1;
	}
	opens_until--;
	(void)to;
	connection_begin(c, ++fd, now_ms);
	c->connecting = true;
	return 0;
}

/* ---- what happens -------------------------------------------------------------- */

static size_t connections(void)
{
	size_t count = 0;

	for (size_t i = 0; i < swarm.count; i++)
		count += connection_is_open(&swarm.peers[i].connection);
	return count;
}

static struct peer *find(bool twin)
{
	for (size_t i = 0; i < swarm.count; i++)
		if (swarm.peers[i].twin == twin && connection_is_open(&swarm.peers[i].connection))
			return &swarm.peers[i];
	abort();
}

static void deliver(struct peer *p, uint64_t bytes)
{
	struct connection *c = &p->connection;

	swarm_heard(p, (size_t)bytes, now);
	c->header_got = PEER_RESPONSE_SIZE;
	c->response = (struct peer_response){.status = PEER_OK, .length = CHUNK};
	for (c->body_got += bytes; c->asked_count > 0 && c->body_got >= CHUNK; delivered++) {
		c->body_got -= CHUNK;
		swarm_chunk_begins(&swarm, p);
		swarm_chunk_arrived(p, now);
		swarm_answered(&swarm, p, now);
		swarm_delivered(&swarm, p, 1);
	}
	c->header_got = c->asked_count > 0 ? c->header_got : 0;
}

static void pass(int64_t ms)
{
	for (int64_t end = now + ms; now < end; now += TICK_MS) {
		size_t asked = 0;
		for (size_t i = 0; i < swarm.count; i++)
			asked += swarm.peers[i].connection.asked_count > 0;
		for (size_t i = 0; i < swarm.count; i++) {
			struct peer *p = &swarm.peers[i];
			struct connection *c = &p->connection;
			uint64_t window = TICK_MS * WINDOW / (uint64_t)round_trip;
			uint64_t share = asked > 0 ? TICK_MS * line / asked : 0;
			if (c->connecting && now - c->heard_ms >= round_trip)
				swarm_connecting_ended(&swarm, p, now);
			else if (c->asked_count > 0 && (accepts_twins || !p->twin))
				deliver(p, window < share ? window : share);
		}
		swarm_manage(&swarm, now);
		most = connections() > most ? connections() : most;
	}
}

static void begin(int64_t round_trip_ms, uint64_t bytes_a_ms)
{
	swarm_end(&swarm, now);
	now = 1000000;
	round_trip = round_trip_ms;
	line = bytes_a_ms;
	accepts_twins = true;
	opens_until = INT_MAX;
	delivered = 0;
	most = 0;
	if (swarm_begin(&swarm, CHUNKS * CHUNK, CHUNK, hash,
			&(struct swarm_options){.peers = &seeder, .peer_count = 1, .time_scale = 1}) < 0)
		abort();
	swarm_manage(&swarm, now);
}

static void add_other(void)
{
	bool news;

	CHECK(swarm_add_entries(&swarm, &(struct tracker_entry){.address = other}, 1, &news) == 1 && news);
}

/* Every chunk is delivered, asked for or wanted. */
static bool is_complete(void)
{
	uint64_t chunks = delivered + swarm.choice.wanted.count;

	for (size_t i = 0; i < swarm.count; i++)
		chunks += swarm.peers[i].connection.asked_count;
	return chunks == CHUNKS;
}

static void test_long_and_fat(void)
{
	begin(50, GIGABIT);
	pass(1000);
	CHECK(connections() == 4 && swarm_connected(&swarm) == 1);
	pass(8000);
	CHECK(connections() == 4 && most == 4 && is_complete());
	CHECK(find(false)->chunks == delivered);
}

static void test_short(void)
{
	begin(15, GIGABIT);
	pass(5000);
	CHECK(most == 1);
}

static void test_thin(void)
{
	begin(50, 5000);
	pass(5000);
	CHECK(most == 1);
}

/* One connection fills the line: more take nothing but places, and are given up for good. */
static void test_no_gain(void)
{
	begin(50, 30000);
	pass(1000);
	CHECK(connections() == 4);
	pass(3000);
	CHECK(connections() == 1);
	most = 1;
	pass(5000);
	CHECK(most == 1 && is_complete());
}

static void test_little_left(void)
{
	begin(50, GIGABIT);
	for (uint64_t chunk = 16; chunk < CHUNKS; chunk++)
		choice_take(&swarm.choice, chunk);
	pass(3000);
	CHECK(most == 1 && delivered == 16);
}

static void test_another_peer(void)
{
	begin(50, GIGABIT);
	add_other();
	pass(3000);
	CHECK(most == 2);

	begin(50, GIGABIT);
	pass(1000);
	CHECK(connections() == 4);
	add_other();
	pass(2000);
	CHECK(connections() == 2 && is_complete());
}

/* When the other has gone they are asked again, in the places that they had. */
static void test_alone_again(void)
{
	begin(50, GIGABIT);
	pass(1000);
	add_other();
	pass(2000);
	CHECK(connections() == 2);
	size_t places = swarm.count;
	for (size_t i = 0; i < swarm.count; i++)
		if (swarm.peers[i].address.ip == other.ip)
			swarm_ban(&swarm, &swarm.peers[i], "is of no use here", now);
	pass(2000);
	CHECK(connections() == 4 && swarm.count == places && is_complete());
}

/* What ends one twin ends all, for good; the peer itself is asked on. */
static void check_single(void)
{
	CHECK(connections() == 1 && is_complete() && !find(false)->banned);
	most = 1;
	pass(3000);
	CHECK(most == 1 && is_complete() && swarm_has_usable_peer(&swarm));
}

static void test_turned_away(void)
{
	begin(50, GIGABIT);
	pass(1000);
	swarm_fail(&swarm, find(true), "has too much to do", now);
	check_single();
}

static void test_closed(void)
{
	begin(50, GIGABIT);
	pass(1000);
	swarm_hung_up(&swarm, find(true), now);
	check_single();
}

/* There are no more descriptors, after two of its twins or before. */
static void test_cannot_be_opened(void)
{
	for (int twins = 0; twins < 3; twins++) {
		begin(50, GIGABIT);
		opens_until = twins;
		pass(1000);
		CHECK(opens_until == 0);
		check_single();
	}
}

/* A full peer accepts no more: the kernel connects, and nobody answers. */
static void test_not_answered(void)
{
	begin(50, GIGABIT);
	accepts_twins = false;
	pass(500);
	CHECK(connections() == 4);
	pass(1500);
	check_single();
}

static void test_peer_closes(void)
{
	begin(50, GIGABIT);
	pass(1000);
	swarm_hung_up(&swarm, find(false), now);
	CHECK(connections() == 0 && is_complete());
	pass(100);
	check_single();
}

/* What is said over a twin is said of the peer. */
static void test_counts_for_the_peer(void)
{
	begin(50, GIGABIT);
	pass(1000);
	struct peer *p = find(false), *twin = find(true);
	swarm_ban(&swarm, twin, "sent a wrong chunk", now);
	CHECK(p->banned && connections() == 0 && is_complete());
	CHECK(!swarm_has_usable_peer(&swarm) && !swarm_has_reachable_peer(&swarm));
	pass(2000);
	CHECK(connections() == 0);

	begin(50, GIGABIT);
	pass(1000);
	p = find(false);
	swarm_lacks_file(&swarm, find(true), now);
	CHECK(p->failures == 1 && p->rest_until_ms > now && connections() == 0 && is_complete());

	begin(50, GIGABIT);
	pass(1000);
	p = find(false);
	twin = find(true);
	twin->connection.header_got = 0;
	swarm_chunk_refused(&swarm, twin, NULL, now);
	CHECK(p->holding.partial && p->refusals == 1 && !twin->holding.partial);
	swarm_chunk_begins(&swarm, twin);
	CHECK(p->refusals == 0);
	pass(3000);
	CHECK(connections() == 1 && is_complete());
}

int main(void)
{
	log_set_level(LOG_QUIET);
	RUN(test_long_and_fat);
	RUN(test_short);
	RUN(test_thin);
	RUN(test_no_gain);
	RUN(test_little_left);
	RUN(test_another_peer);
	RUN(test_alone_again);
	RUN(test_turned_away);
	RUN(test_cannot_be_opened);
	RUN(test_closed);
	RUN(test_not_answered);
	RUN(test_peer_closes);
	RUN(test_counts_for_the_peer);
	swarm_end(&swarm, now);
	return unit_result();
}
