/* test_share.c - who of several files gets how many connections. */
#include "fetch/share.h"

#include "unit.h"

#define FILES 300

static struct share file[FILES], *shares[FILES];
static int64_t now = 1000;

static void begin(size_t count)
{
	for (size_t i = 0; i < count; i++) {
		file[i] = (struct share){.turn = i};
		shares[i] = &file[i];
	}
}

/* Divides, and has each file take what it wants of what it gets, or give up what it has to. */
static void divide(size_t count, size_t total, bool obey)
{
	size_t sum = 0;

	share_connections(shares, count, total, now);
	for (size_t i = 0; i < count; i++) {
		size_t least = file[i].wants < file[i].gets ? file[i].wants : file[i].gets;
		if (obey || file[i].has < least)
			file[i].has = least;
		sum += file[i].has > file[i].gets ? file[i].has : file[i].gets;
	}
	CHECK(sum <= total);
}

static void test_one_file_may_have_all(void)
{
	share_connections(shares, 0, 128, now);		/* there may be none */
	begin(1);
	divide(1, 128, true);
	CHECK(file[0].gets == 128);
	file[0].wants = 1;
	divide(1, 128, true);
	CHECK(file[0].gets == 128);
}

static void test_who_wants_little_leaves_the_rest(void)
{
	begin(4);
	file[0].wants = 1000;
	file[1].wants = 1;
	file[2].wants = 1000;
	file[3].wants = 10;
	divide(4, 128, true);
	CHECK(file[1].gets == 1 && file[3].gets == 10);
	CHECK(file[0].gets + file[2].gets == 117 && file[0].gets - file[2].gets <= 1);
}

static void test_what_nobody_wants_is_divided(void)
{
	begin(3);
	file[0].wants = 4;
	divide(3, 10, true);
	CHECK(file[0].gets == 6 && file[1].gets == 2 && file[2].gets == 2);
}

static void test_who_comes_later_waits_until_others_have_given_up(void)
{
	begin(2);
	file[0].wants = 10;
	divide(2, 10, true);
	CHECK(file[0].gets == 10 && file[0].has == 10);
	file[1].wants = 10;
	divide(2, 10, false);
	CHECK(file[0].gets == 5 && file[1].gets == 0);
	file[0].has = 7;
	divide(2, 10, false);
	CHECK(file[0].gets == 5 && file[1].gets == 3);
	file[0].has = 5;
	divide(2, 10, false);
	CHECK(file[0].gets == 5 && file[1].gets == 5);
}

/* Those that have too much may be any of them. */
static void test_two_come_later(void)
{
	begin(4);
	file[1].wants = file[2].wants = 6;
	divide(4, 12, true);
	file[0].wants = file[3].wants = 3;
	divide(4, 12, false);
	CHECK(file[0].gets == 0 && file[1].gets == 3 && file[2].gets == 3 && file[3].gets == 0);
	divide(4, 12, true);
	divide(4, 12, true);
	CHECK(file[0].gets == 3 && file[1].gets == 3 && file[2].gets == 3 && file[3].gets == 3);
}

/* More is given up than anybody waits for. */
static void test_fewer_than_there_were(void)
{
	begin(2);
	file[0].wants = file[1].wants = 10;
	divide(2, 20, true);
	share_connections(shares, 2, 4, now);
	CHECK(file[0].gets == 2 && file[1].gets == 2);
	divide(2, 4, true);
	CHECK(file[0].has == 2 && file[1].has == 2);
}

/* Each file has its turn, in order, and nobody goes short for ever. */
static void test_turns(void)
{
	int64_t had[FILES] = {0};

	begin(FILES);
	for (size_t i = 0; i < FILES; i++)
		file[i].wants = 1 + i % 3;
	for (int second = 0; second < 100; second++, now += 1000) {
		divide(FILES, 100, true);
		for (size_t i = 0; i < FILES; i++) {
			CHECK(file[i].gets <= 1);
			had[i] += (int64_t)file[i].gets;
			if (second == 0)
				CHECK(file[i].gets == (i < 100));
		}
	}
	for (size_t i = 0; i < FILES; i++)
		CHECK(had[i] >= 20 && had[i] <= 50);
}

static void test_no_turns_while_there_is_room(void)
{
	begin(3);
	for (size_t i = 0; i < 3; i++)
		file[i].wants = 1;
	for (int second = 0; second < 100; second++, now += 1000) {
		divide(3, 3, true);
		CHECK(file[0].turn == 0 && file[1].turn == 1 && file[2].turn == 2);
	}
}

/* A turn passes to a file that waits for a connection, whoever comes after it; not to one
 * that wants none. */
static void test_whose_turn_it_is_next(void)
{
	begin(3);
	file[0].wants = 1;
	for (int second = 0; second < 25; second++, now += 1000) {
		divide(3, 1, true);
		CHECK(file[0].gets == 1);
	}
	file[1].wants = 1;
	divide(3, 1, true);	/* who had it gives it up */
	divide(3, 1, true);
	CHECK(file[0].gets == 0 && file[1].gets == 1 && file[2].gets == 0);
}

int main(void)
{
	RUN(test_one_file_may_have_all);
	RUN(test_who_wants_little_leaves_the_rest);
	RUN(test_what_nobody_wants_is_divided);
	RUN(test_who_comes_later_waits_until_others_have_given_up);
	RUN(test_two_come_later);
	RUN(test_fewer_than_there_were);
	RUN(test_turns);
	RUN(test_no_turns_while_there_is_room);
	RUN(test_whose_turn_it_is_next);
	return unit_result();
}
