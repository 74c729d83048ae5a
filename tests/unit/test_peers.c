/* test_peers.c - whom the fetcher knows, for whom it has no room, and what it thinks of them.
 * Time and connections are made here. */
#include "fetch/peers.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "dial_common.h"
#include "unit.h"

enum { CHUNK = 1000, CHUNKS = 100 };
enum { NOW = 1000000 };

static const uint8_t hash[SHA256_HASH_SIZE];
static struct swarm s;

/* ---- a swarm ------------------------------------------------------------------- */

static struct address at(size_t i)
{
	return (struct address){.ip = (uint32_t)(0x0a000001 + i), .port = 1000};
}

static void begin_at(struct address self, const struct address named[], size_t count)
{
	swarm_end(&s, NOW);
	if (swarm_begin(&s, CHUNK * CHUNKS, CHUNK, hash, &(struct swarm_options){
			.self = self, .peers = named, .peer_count = count, .time_scale = 1}) < 0)
		abort();
}

static void begin(void)
{
	begin_at((struct address){0}, NULL, 0);
}

/* The tracker names that address. Returns whether it is of use. */
static bool hear_of(struct address a, bool *news)
{
	return swarm_add_entries(&s, &(struct tracker_entry){.address = a}, 1, news) == 1;
}

static bool add(size_t i)
{
	bool news;

	return hear_of(at(i), &news) && news;
}

static struct peer *find(size_t i)
{
	for (size_t j = 0; j < s.count; j++)
		if (s.peers[j].address.ip == at(i).ip && !s.peers[j].twin)
			return &s.peers[j];
	return NULL;
}

static void connect_to(struct peer *p)
{
	connection_begin(&p->connection, 1, NOW);
}

static void ask(struct peer *p, uint64_t chunk)
{
	if (!connection_can_ask(&p->connection))
		abort();
	choice_take(&s.choice, chunk);
	connection_ask(&p->connection, chunk, hash, NOW);
}

static struct peer *give_twin(struct peer *p)
{
	struct peer *twin = swarm_find_room(&s);

	swarm_place_twin(&s, twin, p);
	connect_to(twin);
	return twin;
}

/* ---- who is known ---------------------------------------------------------------- */

/* Those named on the command line stay, however they fail. */
static void test_more_are_named_than_there_is_room_for(void)
{
	static struct address named[PEERS_MAX + 10];

	for (size_t i = 0; i < LENGTH(named); i++)
		named[i] = at(i / 2 * 2);	/* each twice */
	begin_at((struct address){0}, named, LENGTH(named));
	CHECK(s.count == LENGTH(named) / 2);
	for (size_t i = 0; i < LENGTH(named); i++)
		named[i] = at(i);
	begin_at((struct address){0}, named, LENGTH(named));
	CHECK(s.count == PEERS_MAX && find(PEERS_MAX - 1) != NULL && find(PEERS_MAX) == NULL);
	swarm_fail(&s, find(3), "fails", NOW);
	CHECK(!add(1000) && s.count == PEERS_MAX && find(3) != NULL && find(1000) == NULL);
}

/* Who failed most goes first; who is banned, or has refused too often, goes last. */
static void test_a_full_table(void)
{
	static const size_t leave_in_turn[] = {5, 6, 7, 8};

	begin();
	for (size_t i = 0; i < PEERS_MAX; i++)
		CHECK(add(i));
	CHECK(!add(500));	/* nothing is wrong with anybody */
	swarm_ban(&s, find(8), "lies", NOW);
	find(7)->refusals = 64;
	find(9)->refusals = 63;
	swarm_fail(&s, find(6), "fails", NOW);
	swarm_fail(&s, find(5), "fails", NOW);
	swarm_fail(&s, find(5), "fails", NOW);
	for (size_t i = 10; i < 12; i++)
		for (int times = 0; times < 9; times++)
			swarm_fail(&s, find(i), "fails", NOW);
	connect_to(find(10));		/* those two can't go now */
	find(11)->unchecked = 1;
	for (size_t i = 0; i < LENGTH(leave_in_turn); i++) {
		CHECK(find(leave_in_turn[i]) != NULL);
		CHECK(add(1000 + i) && find(leave_in_turn[i]) == NULL && s.count == PEERS_MAX);
		CHECK(find(1000 + i)->failures == 0 && find(1000 + i)->refusals == 0 && !find(1000 + i)->banned);
	}
	CHECK(!add(500) && find(9) != NULL && find(10) != NULL && find(11) != NULL);
	find(11)->unchecked = 0;
	CHECK(add(2000) && find(11) == NULL);
}

static bool holds_parts(size_t i)
{
	struct peer *p = find(i);

	if (p == NULL)
		return false;
	p->holding.partial = true;
	swarm_set_fetches(&s, p, true);
	return true;
}

/* Where more peers hold parts than there is room for, who is known doesn't follow from who
 * was heard of first. */
static void test_a_crowd_that_holds_parts(void)
{
	enum {CROWD = 3 * PEERS_MAX};
	static bool known[CROWD];
	size_t late = 0;

	srandom(1);
	begin();
	for (size_t i = 0; i < CROWD; i++) {
		CHECK(add(i) == (i < PEERS_MAX));	/* who takes another's place is no news */
		holds_parts(i);
	}
	for (size_t i = 0; i < CROWD; i++) {
		known[i] = find(i) != NULL;
		late += known[i] && i >= PEERS_MAX;
	}
	CHECK(s.count == PEERS_MAX && late > PEERS_MAX / 2 && late < PEERS_MAX * 5 / 6);

	srandom(1);
	begin();
	for (size_t i = CROWD; i-- > 0; ) {
		add(i);
		holds_parts(i);
	}
	for (size_t i = 0; i < CROWD; i++)
		CHECK(known[i] == (find(i) != NULL));
}

/* Who holds everything, was named on the command line, is connected or owes something stays. */
static void test_who_stays_in_a_crowd(void)
{
	struct address named = at(3);

	begin_at((struct address){0}, &named, 1);
	for (size_t i = 4; s.count < PEERS_MAX; i++)
		add(i);
	for (size_t i = 3; i < 40; i++)
		holds_parts(i);
	for (size_t i = 10; i < 20; i++)
		connect_to(find(i));
	for (size_t i = 20; i < 30; i++)
		find(i)->unchecked = 1;
	for (size_t i = 1000; i < 9000; i++)
		add(i);
	CHECK(s.count == PEERS_MAX);
	for (size_t i = 3; i < PEERS_MAX; i++)
		CHECK(find(i) != NULL || (i > 3 && i < 10) || (i >= 30 && i < 40));
	CHECK(find(4) == NULL);
}

static size_t count_spare(size_t count)
{
	size_t spare = 0;

	for (size_t i = 0; i < count; i++)
		spare += peer_is_spare(find(i));
	return spare;
}

/* Enough of those that fetch are to be connected to; who fails makes room for another. */
static void test_who_is_spare(void)
{
	enum {CROWD = SHARERS_MAX + 8};

	begin();
	for (size_t i = 0; i < CROWD; i++) {
		add(i);
		CHECK(count_spare(i) == (i > SHARERS_MAX ? i - SHARERS_MAX : 0));
		holds_parts(i);
	}
	for (size_t i = 0; i < CROWD; i++)
		for (size_t j = 0; j < CROWD; j++)
			CHECK(find(i)->lot < find(j)->lot || !peer_is_spare(find(i)) || peer_is_spare(find(j)) || i == j);
	swarm_set_fetches(&s, find(0), false);
	swarm_set_fetches(&s, find(0), false);
	CHECK(!peer_is_spare(find(0)) && count_spare(CROWD) == 7);
	swarm_set_fetches(&s, find(0), true);
	CHECK(count_spare(CROWD) == 8);
}

static void test_where_there_can_be_a_peer(void)
{
	static const uint32_t ours = 0x0a000009, loopback = 0x7f000001;
	static const struct {
		struct address self, peer;
		bool usable;
	} known[] = {
		{{.ip = ours, .port = 7}, {.ip = 0x0a000001, .port = 1}, true},
		{{.ip = ours, .port = 7}, {.ip = 0x0a000001, .port = 0}, false},
		{{.ip = ours, .port = 7}, {.ip = 0x00000001, .port = 1}, false},
		{{.ip = ours, .port = 7}, {.ip = 0xdfffffff, .port = 1}, true},
		{{.ip = ours, .port = 7}, {.ip = 0xe0000000, .port = 1}, false},
		{{.ip = ours, .port = 7}, {.ip = ours, .port = 7}, false},
		{{.ip = ours, .port = 7}, {.ip = ours, .port = 8}, true},
		{{.ip = ours, .port = 7}, {.ip = loopback, .port = 1}, false},
		{{.ip = loopback, .port = 7}, {.ip = loopback + 1, .port = 1}, true},
		{{.ip = loopback, .port = 7}, {.ip = loopback, .port = 7}, false},
		{{.ip = 0, .port = 7}, {.ip = loopback, .port = 1}, true},
	};
	bool news;

	for (size_t i = 0; i < LENGTH(known); i++) {
		begin_at(known[i].self, NULL, 0);
		CHECK(hear_of(known[i].peer, &news) == known[i].usable && news == known[i].usable);
		CHECK(hear_of(known[i].peer, &news) == known[i].usable && !news);
		CHECK(s.count == known[i].usable);
	}
}

/* By the tracker's clock, compared with whom it heard of last. */
static void test_who_is_overdue(void)
{
	struct tracker_entry entries[] = {{.address = at(0), .last_seen = 5000, .good = true},
		{.address = at(1), .last_seen = 5661}, {.address = at(2), .last_seen = 5001}};
	bool news;

	begin();
	CHECK(swarm_add_entries(&s, entries, LENGTH(entries), &news) == 3 && news);
	CHECK(find(0)->overdue && !find(1)->overdue && !find(2)->overdue);
	CHECK(find(0)->good && !find(1)->good);
	entries[0].last_seen = 5001;
	entries[0].good = false;
	CHECK(swarm_add_entries(&s, entries, LENGTH(entries), &news) == 3 && !news);
	CHECK(!find(0)->overdue && !find(0)->good);
}

/* Each of these is better than those after it. */
static void test_who_is_better(void)
{
	static const struct peer in_order[] = {
		{.rate = 2000, .failures = 3}, {.rate = 1000, .good = true}, {.good = true}, {.good = false},
		{.overdue = true, .good = true}, {.overdue = true}, {.failures = 1, .good = true}, {.failures = 2},
		{.slow = true, .rate = 5000}, {.slow = true},
	};

	for (size_t i = 0; i < LENGTH(in_order); i++)
		for (size_t j = 0; j < LENGTH(in_order); j++)
			CHECK(peer_is_better(&in_order[i], &in_order[j]) == (i < j));
}

/* ---- what becomes of them -------------------------------------------------------- */

/* One that can't parse several requests in one go is asked for one at a time; if it can't
 * parse one, nothing more. */
static void test_who_cannot_parse(void)
{
	begin();
	for (size_t i = 0; i < 4; i++) {
		add(i);
		connect_to(find(i));
		ask(find(i), 2 * i);
		if (i != 0)
			ask(find(i), 2 * i + 1);
	}
	swarm_cannot_parse(&s, find(0), NOW);
	CHECK(find(0)->banned && !peer_is_connected(find(0)));
	swarm_cannot_parse(&s, find(1), NOW);
	CHECK(!find(1)->banned && find(1)->one_at_a_time && !peer_is_connected(find(1)));
	CHECK(find(1)->failures == 0 && find(1)->rest_until_ms == 0);
	connect_to(find(1));
	ask(find(1), 2);
	swarm_answered(&s, find(1), NOW);
	swarm_cannot_parse(&s, find(1), NOW);
	CHECK(find(1)->banned);
	swarm_chunk_arrived(find(2), NOW);	/* the second of its requests was too much */
	swarm_answered(&s, find(2), NOW);
	swarm_cannot_parse(&s, find(2), NOW);
	CHECK(!find(2)->banned && find(2)->one_at_a_time);
	struct peer *twin = give_twin(find(3));
	ask(twin, 10);
	swarm_cannot_parse(&s, twin, NOW);
	CHECK(twin->banned && !peer_is_connected(twin));
	CHECK(!find(3)->banned && !find(3)->one_at_a_time && find(3)->single && peer_is_connected(find(3)));
	CHECK(s.choice.wanted.count == CHUNKS - 3);	/* one arrived, and two are still asked for */
}

/* What a twin does wrong its peer has done; all its connections end, and no other peer's. */
static void test_a_twin_lies(void)
{
	begin();
	for (size_t i = 0; i < 3; i++) {
		add(i);
		connect_to(find(i));
	}
	struct peer *same_machine = find(1);
	same_machine->address = (struct address){.ip = at(0).ip, .port = 1001};
	struct peer *twin = give_twin(&s.peers[0]), *second = give_twin(&s.peers[0]), *other = give_twin(find(2));
	swarm_ban(&s, twin, "lies", NOW);
	CHECK(s.peers[0].banned && !peer_is_connected(&s.peers[0]));
	CHECK(!peer_is_connected(twin) && !peer_is_connected(second));
	CHECK(peer_is_connected(same_machine) && !same_machine->banned && peer_is_connected(other));
	swarm_ban(&s, &s.peers[0], "lies again", NOW);
	CHECK(s.peers[0].banned);
}

/* One whose peer had to make room for another stands for itself. */
static void test_a_twin_alone(void)
{
	begin();
	add(0);
	struct peer *p = find(0);
	connect_to(p);
	struct peer *twin = give_twin(p);
	CHECK(swarm_peer_of(&s, twin) == p && swarm_peer_of(&s, p) == p);
	CHECK(swarm_connections(&s) == 2 && swarm_connected(&s) == 1);
	p->address = at(1);
	CHECK(swarm_peer_of(&s, twin) == twin);
	swarm_make_single(&s, twin, "closed", NOW);
	CHECK(twin->single && !peer_is_connected(twin) && !p->single && peer_is_connected(p));
}

int main(void)
{
	log_program("test_peers");
	log_set_level(LOG_QUIET);
	begin();
	RUN(test_more_are_named_than_there_is_room_for);
	RUN(test_a_full_table);
	RUN(test_a_crowd_that_holds_parts);
	RUN(test_who_stays_in_a_crowd);
	RUN(test_who_is_spare);
	RUN(test_where_there_can_be_a_peer);
	RUN(test_who_is_overdue);
	RUN(test_who_is_better);
	RUN(test_who_cannot_parse);
	RUN(test_a_twin_lies);
	RUN(test_a_twin_alone);
	swarm_end(&s, NOW);
	return unit_result();
}
