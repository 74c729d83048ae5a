/* test_arrival.c - what a peer sends, from its socket to the data file and to a checker. The
 * swarm, the sockets, the files and the checkers are real; this file is the peers, and now
 * and then a checker. */
#include <stdlib.h>

#include "base/clock.h"

/* arrival.c is included, not linked, so that its malloc can fail, and its clock is set here;
 * checkers.c, to look at the processes. */
static int64_t now;

static void *malloc_for_test(size_t size);

static int64_t clock_for_test(void)
{
	return now;
}

#define malloc malloc_for_test
#define clock_ms clock_for_test
#include "fetch/arrival.c"
#include "fetch/checkers.c"
#undef malloc
#undef clock_ms

#include <poll.h>

#include "check_common.h"

enum { PEERS = 2, CHUNKS = 8 };
enum { SMALL = 1000, MERGED_MAX = 16 << 10, LARGE = 128 << 10 };	/* bytes of a chunk */

static const struct address addresses[PEERS] = {
	{.ip = 0x0a000001, .port = 1000}, {.ip = 0x0a000002, .port = 1000},
};

static struct datafile d;
static struct swarm s;
static struct arrival a;
static struct peer *one, *other;
static int far[PEERS];		/* the peers' ends of their connections */
static bool malloc_fails;
static char *behind;		/* the byte after what was allocated last; 'g' */

static void *malloc_for_test(size_t size)
{
	char *memory = malloc_fails ? NULL : malloc(size + 1);

	if (memory != NULL)
		*(behind = memory + size) = 'g';
	return memory;
}

static void no_progress(void *arg, uint64_t bytes)
{
	(void)arg;
	(void)bytes;
}

/* ---- A fetcher, and what comes to it ---- */

static void take_run(const struct run *run)
{
	arrival_take_result(&a, run);
}

static void lose_checker(void)
{
	arrival_lost_checker(&a);
}

static bool is_idle(void)
{
	return a.unchecked.count == 0 && a.waiting == 0;
}

static void connect_peer(size_t i)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) < 0 || fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0 ||
	    fcntl(ends[1], F_SETFL, O_NONBLOCK) < 0)
		abort();
	connection_begin(&s.peers[i].connection, ends[0], now);
	far[i] = ends[1];
}

static void begin_length(uint64_t length, uint64_t chunk_size, unsigned at_most)
{
	now = clock_ms();
	open_empty(length, chunk_size);
	close_files();
	memset(&d, 0, sizeof d);
	if (datafile_open(&d, meta_path, data_path) < 0 || datafile_claim(&d, false, 1, no_progress) < 0 ||
	    datafile_begin_write(&d) < 0 ||
	    swarm_begin(&s, length, chunk_size, d.meta.cascade_hash,
			&(struct swarm_options){.peers = addresses, .peer_count = PEERS, .time_scale = 1}) < 0)
		abort();
	for (size_t i = 0; i < PEERS; i++)
		connect_peer(i);
	one = &s.peers[0];
	other = &s.peers[1];
	checkers_begin(&d, at_most, take_run, lose_checker);
	arrival_begin(&a, &d, 0, &s);
}

static void begin(uint64_t chunk_size)
{
	begin_length(CHUNKS * chunk_size, chunk_size, 1);
}

static void end(void)
{
	checkers_end();
	CHECK(checker_count == 0 && !has_children());
	swarm_end(&s, now);
	for (size_t i = 0; i < PEERS; i++)
		close(far[i]);
	close(d.fd);
	metafile_close(&d.meta);
	held_free(d.held);
}

static bool has_come(const struct peer *p)
{
	struct pollfd f = {.fd = p->connection.fd, .events = POLLIN};

	return p->connection.fd >= 0 && !a.failed && poll(&f, 1, 0) > 0;
}

/* Sends, from that peer, so many bytes; they are received as they come. */
static void give(struct peer *p, const void *bytes, size_t size)
{
	int fd_of_peer = far[p - s.peers];

	for (size_t sent = 0; sent < size && p->connection.fd >= 0 && !a.failed; ) {
		ssize_t n = send(fd_of_peer, (const char *)bytes + sent, size - sent, MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN)
			abort();
		sent += n > 0 ? (size_t)n : 0;
		while (has_come(p))
			arrival_receive(&a, p);
	}
}

static void ask(struct peer *p, uint64_t chunk)
{
	struct connection *c = &p->connection;

	if (!connection_can_ask(c))
		abort();
	choice_take(&s.choice, chunk);
	connection_ask(c, chunk, d.meta.cascade_hash, now);
	c->out_used = 0;
}

static void give_header(struct peer *p, unsigned status, uint64_t length)
{
	uint8_t header[PEER_RESPONSE_SIZE];

	peer_response_encode(header, &(struct peer_response){.status = (uint8_t)status, .length = length});
	give(p, header, sizeof header);
}

static const uint8_t *bytes_of(uint64_t chunk)
{
	return want + chunk * d.meta.chunk_size;
}

static uint64_t length_of(uint64_t chunk)
{
	return metafile_chunk_length(&d.meta, chunk);
}

/* Asks the peer for a chunk, and has it come. */
static void deliver(struct peer *p, uint64_t chunk)
{
	ask(p, chunk);
	give_header(p, PEER_OK, length_of(chunk));
	give(p, bytes_of(chunk), (size_t)length_of(chunk));
}

static void deliver_wrong(struct peer *p, uint64_t chunk)
{
	ask(p, chunk);
	give_header(p, PEER_OK, length_of(chunk));
	give(p, want, (size_t)length_of(chunk) - 1);
	give(p, "\x55", 1);
}

/* All that has come is looked at. */
static void settle(void)
{
	arrival_flush(&a);
	for (unsigned i = 0; i < checker_count; i++)
		while (checkers[i].waiting > 0 && !a.failed)
			take_from(&checkers[i]);
	CHECK(a.failed || (is_idle() && one->unchecked == 0 && other->unchecked == 0));
}

static bool has_error(const struct peer *p, const char *why)
{
	return strstr(s.trouble, why) != NULL && p->failures > 0 && !connection_is_open(&p->connection);
}

/* ---- Chunks ---- */

static void test_in_any_pieces(void)
{
	static const uint64_t sizes[] = {1, SMALL, MERGED_MAX, MERGED_MAX + 1, LARGE, LARGE + 1};
	static const size_t pieces[] = {7, PEER_RESPONSE_SIZE, SMALL + PEER_RESPONSE_SIZE, 50000, 1 << 20};
	static const uint64_t chunks[] = {0, 1, 2, 5, 3, 4, CHUNKS - 1};
	static uint8_t stream[CHUNKS * (LARGE + 1 + PEER_RESPONSE_SIZE)];

	for (size_t i = 0; i < LENGTH(sizes); i++)
		for (size_t j = 0; j < LENGTH(pieces); j++) {
			size_t size = 0;
			if (sizes[i] / pieces[j] > 2000)
				continue;	/* takes long, and shows no more */
			begin_length(CHUNKS * sizes[i] - sizes[i] / 2, sizes[i], 1);
			for (size_t at = 0; at < LENGTH(chunks); at++) {
				struct peer_response r = {.status = PEER_OK, .length = length_of(chunks[at])};
				ask(one, chunks[at]);
				peer_response_encode(stream + size, &r);
				memcpy(stream + size + PEER_RESPONSE_SIZE, bytes_of(chunks[at]), (size_t)r.length);
				size += PEER_RESPONSE_SIZE + (size_t)r.length;
			}
			for (size_t at = 0; at < size; at += pieces[j])
				give(one, stream + at, size - at < pieces[j] ? size - at : pieces[j]);
			settle();
			for (size_t at = 0; at < LENGTH(chunks); at++)
				CHECK(held_has(d.held, chunks[at]));
			CHECK(a.held == LENGTH(chunks) && held_count(d.held) == a.held && !a.failed);
			CHECK(one->chunks == a.held && one->connection.answers == a.held);
			CHECK(one->connection.asked_count == 0);
			CHECK(connection_is_open(&one->connection) && one->connection.header_got == 0);
			end();
		}
}

/* Bytes of any response are a sign of life. */
static void test_heard(void)
{
	static const uint64_t sizes[] = {SMALL, LARGE};

	for (size_t i = 0; i < LENGTH(sizes); i++) {
		begin(sizes[i]);
		ask(one, 0);
		now += 10;
		give_header(one, PEER_OK, sizes[i]);
		CHECK(one->connection.heard_ms == now);
		now += 10;
		give(one, bytes_of(0), 500);
		CHECK(one->connection.heard_ms == now && one->rate > 0);
		end();
	}
}

/* What is taken from a socket is no more than the limit allows. */
static void test_limit(void)
{
	begin(SMALL);
	ask(one, 0);
	intake_limit(1);
	CHECK(send(far[0], want, 100, 0) == 100);
	arrival_receive(&a, one);
	CHECK(one->connection.header_got == 0);
	intake_limit(0);
	end();

	begin(LARGE);
	ask(one, 0);
	give_header(one, PEER_OK, LARGE);
	intake_limit(200000);
	CHECK(send(far[0], bytes_of(0), 100000, 0) == 100000);
	now = clock_ms() + 200;
	arrival_receive(&a, one);
	CHECK(one->connection.body_got == 20000);
	CHECK(intake_allowed(now) == 0);	/* what came is counted */
	intake_limit(0);
	end();
}

/* Of a chunk that comes fast, poll tells when there is much of it. */
static void test_waking_up(void)
{
	enum { CHUNK = 1 << 20, MIN = 256 << 10, FAST = 1 << 30 };

	begin(CHUNK);
	ask(one, 0);
	give_header(one, PEER_OK, CHUNK);
	give(one, bytes_of(0), 1000);
	CHECK(one->connection.wake_bytes == 1);		/* not fast yet */
	one->connection.rate_bytes = FAST;
	give(one, bytes_of(0) + 1000, 1000);
	CHECK(one->connection.wake_bytes == MIN);
	give(one, bytes_of(0) + 2000, CHUNK - MIN / 2 - 2000);
	CHECK(one->connection.wake_bytes == MIN / 2);	/* there is no more of it */
	give(one, bytes_of(0) + CHUNK - MIN / 2, MIN / 2);
	CHECK(one->connection.wake_bytes == 1);		/* none is coming */
	settle();
	CHECK(held_has(d.held, 0));
	ask(one, 1);
	intake_limit(1000000);
	now = clock_ms() + 1000;	/* after any pause of a test before */
	one->connection.rate_bytes = FAST;
	give_header(one, PEER_OK, CHUNK);
	CHECK(one->connection.wake_bytes == 1);		/* no more is allowed */
	intake_limit(0);
	end();
}

/* In a ring, the last chunk of the window lies before the first one: they are no neighbours. */
static void test_side_by_side_in_a_ring(void)
{
	static const uint64_t chunks[] = {4, 5, 2, 3};	/* of the window, which begins with 2 */
	uint8_t bytes[LENGTH(chunks) * (PEER_RESPONSE_SIZE + SMALL)];

	begin(SMALL);
	d.meta.ring = LENGTH(chunks);
	for (size_t i = 0; i < LENGTH(chunks); i++) {
		uint8_t *response = bytes + i * (PEER_RESPONSE_SIZE + SMALL);
		ask(one, chunks[i]);
		peer_response_encode(response, &(struct peer_response){.length = SMALL});
		memcpy(response + PEER_RESPONSE_SIZE, bytes_of(chunks[i]), SMALL);
	}
	give(one, bytes, sizeof bytes);
	settle();
	for (size_t i = 0; i < LENGTH(chunks); i++)
		CHECK(held_has(d.held, chunks[i]));
	CHECK(a.held == LENGTH(chunks) && !one->banned && s.choice.wanted.count == CHUNKS - LENGTH(chunks));
	end();
}

static void test_wrong_chunk(void)
{
	begin(SMALL);
	ask(other, 2);
	deliver(one, 0);
	deliver_wrong(one, 1);
	settle();
	CHECK(s.choice.wanted.count == CHUNKS - 2);
	give_header(other, PEER_OK, SMALL);
	give(other, bytes_of(2), SMALL);
	settle();
	CHECK(held_has(d.held, 0) && !held_has(d.held, 1) && held_has(d.held, 2) && a.held == 2);
	CHECK(wanted_has(&s.choice.wanted, 1) && !wanted_has(&s.choice.wanted, 0) && s.wasted == SMALL);
	CHECK(one->banned && one->chunks == 1 && !other->banned && other->chunks == 1 && !a.failed);
	end();
}

/* A run has the chunks of one peer, which are neighbours: else one would answer for another. */
static void test_runs(void)
{
	begin(SMALL);
	deliver(one, 0);
	deliver(one, 1);
	CHECK(a.unchecked.first == 0 && a.unchecked.count == 2 && one->unchecked == 1 && !is_idle());
	deliver(other, 2);
	CHECK(a.unchecked.first == 2 && a.unchecked.count == 1 && one->unchecked + other->unchecked == 2);
	deliver(other, 4);
	CHECK(a.unchecked.first == 4 && a.unchecked.count == 1 && other->unchecked == 2);
	CHECK(checker_count == 1 && checkers[0].waiting == 2);
	settle();
	CHECK(a.held == 4 && one->chunks == 2 && other->chunks == 2);
	end();
}

/* When a checker is woken up: for a MiB, if it can't hash more chunks at the same time, else
 * for as many as it can, or for 32 MiB. */
static void test_handing_over(void)
{
	enum { CHUNK = 256 << 10 };

	sha256_force("portable");
	begin(CHUNK);
	for (uint64_t chunk = 0; chunk < 4; chunk++) {
		CHECK(checker_count == 0 && a.unchecked.count == chunk);
		deliver(one, chunk);
	}
	CHECK(checker_count == 1 && checkers[0].waiting == 1 && a.unchecked.count == 0);
	settle();
	CHECK(a.held == 4);
	end();
	sha256_force(NULL);
	size_t lanes = sha256_lanes();
	if (lanes < 3)
		return;		/* the rest needs an implementation with lanes */
	begin_length(32 * (uint64_t)CHUNK, CHUNK, 1);
	uint64_t least = lanes > 4 ? lanes : 4;
	for (uint64_t chunk = 0; chunk < least; chunk++) {
		CHECK(checker_count == 0 && a.unchecked.count == chunk);
		deliver(one, chunk);
	}
	CHECK(checker_count == 1 && a.unchecked.count == 0);
	end();
}

/* ---- Other responses ---- */

/* A response that breaks the protocol has its sender banned when the header has come. */
static void test_error_responses(void)
{
	enum { REFUSED, FAILED, ONE_AT_A_TIME, BANNED, BANNED_BY_HEADER };
	static const struct {
		unsigned status;
		uint64_t length;
		unsigned asked;
		int result;
	} known[] = {
		{PEER_NO_CHUNK_YET, 5, 1, REFUSED}, {PEER_NO_CHUNK_YET, 0, 1, REFUSED},
		{PEER_NO_CHUNK_YET, 65536, 1, REFUSED}, {PEER_NO_CHUNK_YET, 65537, 1, BANNED_BY_HEADER},
		{PEER_NO_FILE, 5, 1, FAILED}, {PEER_NO_SUCH_CHUNK, 5, 1, BANNED},
		{PEER_BAD_REQUEST, 5, 1, BANNED}, {PEER_BAD_REQUEST, 5, 2, ONE_AT_A_TIME},
		{PEER_STATUS_COUNT, 5, 1, BANNED_BY_HEADER}, {255, 5, 1, BANNED_BY_HEADER},
		{PEER_OK, SMALL - 1, 1, BANNED_BY_HEADER}, {PEER_OK, SMALL + 1, 1, BANNED_BY_HEADER},
		{PEER_OK, 0, 1, BANNED_BY_HEADER}, {PEER_OK, SMALL, 0, BANNED_BY_HEADER},
		{PEER_NO_FILE, 5, 0, FAILED}, {PEER_STATUS_COUNT, 5, 0, FAILED},
	};
	static const uint8_t message[65537];

	for (size_t i = 0; i < LENGTH(known); i++) {
		begin(SMALL);
		for (uint64_t chunk = 0; chunk < known[i].asked; chunk++)
			ask(one, chunk);
		give_header(one, known[i].status, known[i].length);
		CHECK(one->banned == (known[i].result == BANNED_BY_HEADER));
		give(one, message, (size_t)known[i].length);
		CHECK(one->banned == (known[i].result >= BANNED) && one->failures == (known[i].result == FAILED));
		CHECK(one->refusals == (known[i].result == REFUSED));
		CHECK(one->one_at_a_time == (known[i].result == ONE_AT_A_TIME));
		CHECK(connection_is_open(&one->connection) == (known[i].result == REFUSED));
		CHECK(s.choice.wanted.count == CHUNKS);
		end();
	}
}

/* A refusal that says what the peer holds is understood, however it comes; without memory, and
 * if it is too long, it is a refusal all the same. */
static void test_told_refusals(void)
{
	static char message[CONNECTION_MESSAGE_MAX + REGIONS_TEXT_MAX];
	struct region_set set = {0};

	region_set_add(&set, 3);
	memset(message, '.', sizeof message);
	for (int round = 0; round < 5; round++) {
		size_t before = round == 3 ? CONNECTION_MESSAGE_MAX : 8, size;
		begin(SMALL);
		malloc_fails = round == 2;
		size = before + region_set_encode(message + before, &set, CHUNKS);
		if (round == 4)		/* as long as it may be */
			size = CONNECTION_MESSAGE_MAX - 16 +
			       region_set_encode(message + CONNECTION_MESSAGE_MAX - 16, &set, CHUNKS);
		ask(one, 0);
		give_header(one, PEER_NO_CHUNK_YET, size);
		for (size_t at = 0, piece = round == 1 ? 1 : size; at < size; at += piece)
			give(one, message + at, piece);
		CHECK(malloc_fails || *behind == 'g');
		malloc_fails = false;
		bool told = round != 2 && round != 3;
		CHECK(one->tells == told && one->holding.partial && one->refusals == 1);
		CHECK(region_set_has(&one->holding.has, 3) == told && region_set_has(&one->holding.lacks, 0));
		CHECK(connection_is_open(&one->connection) && one->connection.asked_count == 0);
		memset(message, '.', sizeof message);
		deliver(one, 3);	/* and it goes on */
		settle();
		CHECK(held_has(d.held, 3) && one->refusals == 0);
		end();
	}
}

/* After a ban nothing more is taken, though it has come. */
static void test_what_follows_a_fault(void)
{
	uint8_t bytes[2 * PEER_RESPONSE_SIZE + SMALL];

	begin(SMALL);
	ask(one, 0);
	ask(one, 1);
	peer_response_encode(bytes, &(struct peer_response){.status = PEER_NO_SUCH_CHUNK});
	peer_response_encode(bytes + PEER_RESPONSE_SIZE, &(struct peer_response){.length = SMALL});
	memcpy(bytes + 2 * PEER_RESPONSE_SIZE, bytes_of(1), SMALL);
	give(one, bytes, sizeof bytes);
	settle();
	CHECK(one->banned && a.held == 0 && s.choice.wanted.count == CHUNKS);
	end();
}

/* ---- How a connection ends ---- */

static void hang_up(struct peer *p)
{
	close(far[p - s.peers]);
	far[p - s.peers] = -1;
	while (has_come(p))
		arrival_receive(&a, p);
}

static void test_ends(void)
{
	for (int round = 0; round < 5; round++) {
		begin(SMALL);
		if (round > 0)
			ask(one, 0);
		if (round == 2) {	/* it answered once, and leaves the rest */
			ask(one, 1);
			give_header(one, PEER_OK, SMALL);
			give(one, bytes_of(0), SMALL);
		}
		if (round == 3)		/* in the middle */
			give_header(one, PEER_OK, SMALL);
		if (round == 4) {	/* in the middle of its second answer */
			give_header(one, PEER_NO_CHUNK_YET, 0);
			ask(one, 1);
			give(one, "", 1);
		}
		hang_up(one);
		bool fails = round % 2 == 1 || round == 4;
		CHECK(!connection_is_open(&one->connection) && one->failures == fails && !one->banned);
		CHECK(!fails || has_error(one, "closed the connection before it answered"));
		CHECK(one->closings == (round == 2) && s.choice.wanted.count == CHUNKS - (round == 2));
		settle();
		CHECK(a.held == (round == 2));
		end();
	}
}

static void test_broken_connections(void)
{
	for (int round = 0; round < 4; round++) {
		bool large = round >= 2;
		begin(large ? LARGE : SMALL);
		ask(one, 0);
		if (large)
			give_header(one, PEER_OK, LARGE);
		if (round % 2 == 0) {		/* reset: there was something that nobody read */
			CHECK(send(one->connection.fd, "x", 1, 0) == 1);
			hang_up(one);
			CHECK(has_error(one, strerror(ECONNRESET)));
		} else {
			int no_socket = open("/dev/null", O_WRONLY);
			CHECK(dup2(no_socket, one->connection.fd) >= 0 && close(no_socket) == 0);
			arrival_receive(&a, one);
			CHECK(one->failures == 1 && !connection_is_open(&one->connection) && !a.failed);
		}
		CHECK(s.choice.wanted.count == CHUNKS);
		end();
	}
	begin(SMALL);
	ask(one, 0);
	arrival_receive(&a, one);	/* nothing has come */
	CHECK(connection_is_open(&one->connection) && one->failures == 0);
	end();
}

/* ---- Checkers ---- */

/* As many as there may be, each if the others have something to do. */
static void test_several_checkers(void)
{
	begin_length(8 * CHUNKS * SMALL, SMALL, 99);
	CHECK(checkers_most == CHECKERS_MAX);
	checkers_most = 3;
	deliver(one, 0);
	settle();
	for (uint64_t chunk = 2; chunk < 14; chunk += 2) {
		deliver(one, chunk);
		arrival_flush(&a);
		CHECK(checker_count == (chunk > 4 ? 3 : chunk / 2));
	}
	for (unsigned i = 0; i < 3; i++)
		CHECK(checkers[i].waiting == 2);
	while (checkers[0].waiting > 0)
		take_from(&checkers[0]);
	CHECK(!is_idle() && one->unchecked == 4);	/* the others have something */
	settle();
	CHECK(a.held == 7);
	checkers_end();
	deliver(one, 1);		/* and there are new ones */
	settle();
	CHECK(a.held == 8 && checker_count == 1);
	end();
}

static void test_no_process_can_be_had(void)
{
	begin(SMALL);
	forks_that_work = 0;
	deliver(one, 0);
	deliver_wrong(one, 2);
	deliver(other, 1);
	settle();
	CHECK(checker_count == 0 && a.held == 2 && one->banned && !other->banned && !a.failed);
	end();
	begin_length(CHUNKS * SMALL, SMALL, 2);
	forks_that_work = 1;
	for (uint64_t chunk = 0; chunk < CHUNKS; chunk += 2)
		deliver(one, chunk);
	settle();
	CHECK(checker_count == 1 && a.held == CHUNKS / 2 && !a.failed);
	forks_work_again();
	end();
}

/* A checker takes so many runs; then its results are taken first. */
static void test_many_runs(void)
{
	begin_length((2 * CHECKER_WAITING_MAX + 40) * SMALL, SMALL, 1);
	for (uint64_t chunk = 0; chunk < d.meta.chunks; chunk += 2) {
		deliver(one, chunk);
		CHECK(checker_count == 0 || checkers[0].waiting <= CHECKER_WAITING_MAX);
	}
	settle();
	CHECK(a.held == d.meta.chunks / 2 && !a.failed);
	end();
}

/* The checker is stopped, and can be sent runs; then it is killed, with all that it was sent. */
static void stop_checker(void)
{
	int status;

	kill(checkers[0].pid, SIGSTOP);
	while (waitpid(checkers[0].pid, &status, WUNTRACED) < 0 && errno == EINTR)
		;
}

static void kill_checker(void)
{
	kill(checkers[0].pid, SIGKILL);
	wait_for_death(checkers[0].pid);
}

/* One that has nothing to do is replaced; with one that has, the file fails. */
static void test_dead_checker(void)
{
	begin(SMALL);
	deliver(one, 0);
	settle();
	kill_checker();
	deliver(one, 1);
	settle();
	CHECK(!a.failed && a.held == 2);
	stop_checker();
	deliver(one, 2);
	arrival_flush(&a);
	deliver(one, 3);
	kill_checker();
	take_from(&checkers[0]);
	CHECK(a.failed && a.held == 2 && !one->banned);
	CHECK(!arrival_flush(&a) && checker_count == 0);	/* does nothing more */
	end();
}

static void test_checker_that_dies_with_all_it_can_take(void)
{
	begin_length((2 * CHECKER_WAITING_MAX + 40) * SMALL, SMALL, 1);
	deliver(one, 0);
	settle();
	stop_checker();
	for (uint64_t chunk = 2; checkers[0].waiting < CHECKER_WAITING_MAX; chunk += 2)
		deliver(one, chunk);
	kill_checker();
	CHECK(!a.failed);
	arrival_flush(&a);
	CHECK(a.failed && a.held == 1 && a.error == 0);
	end();
}

/* In the place of a checker: that run is its result. */
static void pretend_result(struct run run)
{
	a.waiting++;
	arrival_take_result(&a, &run);
}

static void test_impossible_results(void)
{
	static const struct {
		struct run run;
		bool possible;
	} known[] = {
		{{.count = 1, .peer = 0}, true}, {{.count = 1, .peer = PEERS - 1}, true},
		{{.count = 1, .peer = PEERS}, false}, {{.count = 1, .peer = UINT32_MAX}, false},
		{{.count = 1, .bad = 2}, false}, {{.count = 1, .bad = UINT64_MAX}, false},
		{{.count = 1, .bad = 1}, true},
	};

	for (size_t i = 0; i < LENGTH(known); i++) {
		begin(SMALL);
		one->unchecked = other->unchecked = 1;
		choice_take(&s.choice, 0);
		pretend_result(known[i].run);
		CHECK(a.failed == !known[i].possible && a.held == (known[i].possible && known[i].run.bad == 0));
		CHECK(one->unchecked + other->unchecked == (known[i].possible ? 1 : 2));
		CHECK(one->banned == (known[i].possible && known[i].run.bad == 1) && !other->banned);
		CHECK(!one->banned || (!one->proven && one->chunks == 0));
		end();
	}
}

/* Chunks that prove nothing leave the mark, unless they are all. */
static void test_mark_goes_when_all_is_held(void)
{
	begin(SMALL);
	CHECK(datafile_mark(&d) == 0 && d.marked);
	one->unchecked = 2;
	pretend_result((struct run){.first = 0, .count = CHUNKS - 1});
	CHECK(d.marked && !a.failed);
	pretend_result((struct run){.first = CHUNKS - 1, .count = 1});
	CHECK(!d.marked && !a.failed && a.held == CHUNKS);
	end();
}

/* The peer is not to blame for a file that can't be read back, nor for the metafile. */
static void test_files_that_fail_a_checker(void)
{
	for (int round = 0; round < 3; round++) {
		begin(SMALL);
		deliver(one, 1);
		CHECK(truncate(round == 0 ? data_path : meta_path, METAFILE_HEADER_SIZE) == 0);
		forks_that_work = round == 2 ? 0 : 1;
		settle();
		forks_work_again();
		CHECK(a.failed && !one->banned && a.held == 0 && wanted_has(&s.choice.wanted, 1));
		CHECK(*d.lost == (round > 0) && (d.meta.error != 0) == (round > 0));
		end();
	}
}

/* Of each chunk that is right it is said who sent it, to those who want to read that. */
static void test_says_who_sent_it(void)
{
	char path[UNIT_PATH_SIZE], text[4096] = "";
	int saved = dup(STDERR_FILENO), log = open(unit_path(path, "log"), O_RDWR | O_CREAT | O_TRUNC, 0666);

	begin(SMALL);
	deliver(other, 5);
	settle();
	deliver(one, 2);
	deliver(one, 3);
	deliver_wrong(one, 4);
	log_set_level(LOG_VERBOSE);
	dup2(log, STDERR_FILENO);
	settle();
	dup2(saved, STDERR_FILENO);
	log_set_level(LOG_QUIET);
	CHECK(pread(log, text, sizeof text - 1, 0) > 0);
	for (char number = '2'; number <= '5'; number++) {
		char line[] = "10.0.0.1:1000: chunk ? came from it";
		*strchr(line, '?') = number;
		CHECK((strstr(text, line) != NULL) == (number < '4'));
	}
	CHECK(strstr(text, "sent a wrong chunk (4)") != NULL);	/* the first one of the run that is wrong */
	close(saved);
	close(log);
	end();
}

/* ---- The data file ---- */

/* From now on the data file can't be written. */
static void write_protect(void)
{
	int read_only = open(data_path, O_RDONLY);

	CHECK(dup2(read_only, d.fd) >= 0 && close(read_only) == 0);
}

/* What was written before is still checked, and held. */
static void test_write_fails(void)
{
	static const uint64_t sizes[] = {SMALL, LARGE};

	for (size_t i = 0; i < LENGTH(sizes); i++)
		for (int before = 0; before < 3; before++) {
			begin(sizes[i]);
			for (int chunk = 0; chunk < before; chunk++)
				deliver(one, (uint64_t)chunk);
			if (before == 2)
				settle();	/* the mark is gone */
			if (before > 0)
				deliver(one, 4);
			write_protect();
			CHECK(!a.failed);
			deliver(one, 6);
			CHECK(a.failed && a.error == EBADF && !one->banned);
			CHECK(before == 1 || is_idle());	/* with 1 the mark can't be removed, either */
			CHECK(before != 2 || (a.held == 3 && held_has(d.held, 4)));
			end();
		}
}

/* All that came after is left, and a checker that has died meanwhile is not waited for. */
static void test_write_fails_in_the_middle(void)
{
	static const uint64_t chunks[] = {3, 5, 7};
	uint8_t bytes[LENGTH(chunks) * (PEER_RESPONSE_SIZE + SMALL)];

	begin(SMALL);
	deliver(one, 0);
	settle();
	stop_checker();
	deliver(one, 1);
	arrival_flush(&a);
	kill_checker();
	for (size_t i = 0; i < LENGTH(chunks); i++) {
		uint8_t *response = bytes + i * (PEER_RESPONSE_SIZE + SMALL);
		ask(one, chunks[i]);
		peer_response_encode(response, &(struct peer_response){.length = SMALL});
		memcpy(response + PEER_RESPONSE_SIZE, bytes_of(chunks[i]), SMALL);
	}
	write_protect();
	give(one, bytes, sizeof bytes);
	CHECK(a.failed && a.error == EBADF && a.held == 1 && one->connection.asked_count == 1);
	end();
}

/* A chunk that is right, and a mark that can't be removed then. */
static void test_unmark_fails(void)
{
	begin(SMALL);
	deliver(one, 0);
	CHECK(d.marked);
	write_protect();
	settle();
	CHECK(a.failed && !one->banned && held_has(d.held, 0));
	end();
}

static void test_cut_or_removed(void)
{
	static const uint64_t sizes[] = {SMALL, LARGE};

	for (size_t i = 0; i < LENGTH(sizes); i++)
		for (int removed = 0; removed < 2; removed++) {
			struct stat st;
			begin(sizes[i]);
			ask(one, 0);
			give_header(one, PEER_OK, sizes[i]);
			CHECK((removed ? unlink(data_path) : ftruncate(d.fd, 10)) == 0 && !a.failed);
			give(one, bytes_of(0), (size_t)sizes[i]);
			CHECK(a.failed && a.error == 0 && a.held == 0 && !one->banned);
			CHECK(removed || (fstat(d.fd, &st) == 0 && st.st_size == 10));
			end();
		}
}

static int run_all(void)
{
	log_program("test_arrival");
	log_set_level(LOG_QUIET);
	set_up();
	RUN(test_in_any_pieces);
	RUN(test_heard);
	RUN(test_limit);
	RUN(test_waking_up);
	RUN(test_side_by_side_in_a_ring);
	RUN(test_wrong_chunk);
	RUN(test_runs);
	RUN(test_handing_over);
	RUN(test_error_responses);
	RUN(test_told_refusals);
	RUN(test_what_follows_a_fault);
	RUN(test_ends);
	RUN(test_broken_connections);
	RUN(test_several_checkers);
	RUN(test_no_process_can_be_had);
	RUN(test_many_runs);
	RUN(test_dead_checker);
	RUN(test_checker_that_dies_with_all_it_can_take);
	RUN(test_impossible_results);
	RUN(test_mark_goes_when_all_is_held);
	RUN(test_files_that_fail_a_checker);
	RUN(test_says_who_sent_it);
	RUN(test_write_fails);
	RUN(test_write_fails_in_the_middle);
	RUN(test_unmark_fails);
	RUN(test_cut_or_removed);
	return unit_result();
}

int main(void)
{
	return unit_in_scratch(run_all);
}
