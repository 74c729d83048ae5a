/* test_slow.c - a file of one chunk, one peer on a busy machine, and others that drip. The
 * swarm is the real one; time and connections are made here, and follow from a number. */
#include "fetch/swarm.h"

#include <limits.h>
#include <stdlib.h>

#include "base/log.h"
#include "dial_common.h"
#include "unit.h"

enum { CHUNK = 1 << 20, DRIP = 256, DRIP_MS = 250 };	/* 1 KiB a second: never hopeless */
enum { SEGMENT = 1448 };	/* what a machine sends at least, other than its last bytes */
enum { PEERS = 40, GOOD = 0 };
enum { BEGIN_MS = 1000000, CASES = 1000, MOST_MS = 100000 };

static const uint8_t hash[SHA256_HASH_SIZE];
static struct swarm swarm;
static int64_t now;
static int busy_ms;		/* the good peer stops for so long at most, before it begins and now and then */
static int header_ms;		/* until the header of one that drips comes */
static int64_t due_ms[PEERS];	/* when something comes next: a connection is made, or bytes */
static bool awaited[PEERS];	/* bytes do */

int connection_open(struct connection *c, struct address to, int64_t now_ms)
{
	connection_begin(c, 1, now_ms);
	c->connecting = true;
	due_ms[to.port - 1000] = now_ms + 1 + random() % 30;
	awaited[to.port - 1000] = false;
	return 0;
}

static void begin(size_t count)
{
	struct address at[PEERS];

	now = BEGIN_MS;
	for (size_t i = 0; i < count; i++)
		at[i] = (struct address){.ip = (uint32_t)(0x0a000001 + i), .port = (uint16_t)(1000 + i)};
	if (swarm_begin(&swarm, CHUNK, CHUNK, hash, &(struct swarm_options){
			.peers = at, .peer_count = count, .time_scale = 1}) < 0)
		abort();
	swarm_manage(&swarm, now);
}

static int64_t pause_ms(size_t i)
{
	if (i != GOOD)
		return awaited[i] ? DRIP_MS : header_ms;
	return !awaited[i] || random() % 3 == 0 ? random() % (busy_ms + 1) : 0;
}

/* Some bytes of the chunk come. Returns whether they are the last ones. */
static bool send_some(struct peer *p, size_t i)
{
	struct connection *c = &p->connection;
	size_t missing, n = i == GOOD ? (size_t)SEGMENT << random() % 10 : DRIP;

	if (c->header_got == 0) {	/* the header comes alone: the least that tells a rate */
		c->header_got = PEER_RESPONSE_SIZE;
		c->response = (struct peer_response){.status = PEER_OK, .length = CHUNK};
		c->body_got = 0;
		swarm_chunk_begins(&swarm, p);
		n = 0;
	}
	missing = (size_t)connection_missing_of_chunk(c);
	n = n < missing ? n : missing;
	c->body_got += n;
	swarm_heard(p, n > 0 ? n : PEER_RESPONSE_SIZE, now);
	return c->body_got == CHUNK;
}

/* What that peer does now. Returns whether it has sent the chunk; *happened becomes true if
 * anything came. */
static bool act(struct peer *p, bool *happened)
{
	size_t i = p->address.port - 1000u;
	struct connection *c = &p->connection;

	if (c->asked_count == 0 && !c->connecting) {
		awaited[i] = false;
		return false;
	}
	if (!c->connecting && !awaited[i]) {
		due_ms[i] = now + pause_ms(i);
		awaited[i] = true;
	}
	if (now < due_ms[i])
		return false;
	*happened = true;
	if (c->connecting) {
		swarm_connecting_ended(&swarm, p, now);
		return false;
	}
	due_ms[i] = now + pause_ms(i);
	return send_some(p, i);
}

/* How long it takes with so many peers, in ms; MOST_MS: it has not ended. */
static int64_t fetch_from(size_t count)
{
	int64_t look_ms = 0;
	bool complete = false;

	for (begin(count); !complete && now < BEGIN_MS + MOST_MS; now++) {
		bool happened = false;
		for (size_t i = 0; i < swarm.count && !complete; i++)
			if (peer_is_connected(&swarm.peers[i]))
				complete = act(&swarm.peers[i], &happened);
		if (complete || (!happened && now < look_ms))
			continue;
		swarm_manage(&swarm, now);
		look_ms = swarm_next_event_ms(&swarm, now, INT64_MAX);
	}
	swarm_end(&swarm, now);
	return now - BEGIN_MS;
}

/* Whether the cases take less than that, on average and each. */
static bool takes(int64_t mean_ms, int64_t most_ms, size_t count, int busy)
{
	int64_t longest_ms = 0, sum_ms = 0;
	unsigned longest = 0;

	busy_ms = busy;
	for (unsigned seed = 1; seed <= CASES; seed++) {
		srandom(seed);
		int64_t ms = fetch_from(count);
		sum_ms += ms;
		if (ms > longest_ms) {
			longest_ms = ms;
			longest = seed;
		}
	}
	if (sum_ms / CASES < mean_ms && longest_ms < most_ms)
		return true;
	printf("%lld ms on average; seed %u: %lld ms\n", (long long)(sum_ms / CASES), longest, (long long)longest_ms);
	return false;
}

static void test_free(void)
{
	header_ms = 0;
	CHECK(takes(1000, 5000, 4, 5));
	CHECK(takes(1400, 10000, 10, 5));
	CHECK(takes(2100, 20000, PEERS, 5));
}

/* It is left for another again and again, just as it begins. */
static void test_busy(void)
{
	header_ms = 0;
	CHECK(takes(1500, 10000, 4, 60));
	CHECK(takes(2450, 20000, 10, 60));
	CHECK(takes(8000, 60000, PEERS, 60));
	CHECK(takes(4900, 25000, 4, 500));
}

/* Those that drip look silent at first, and then like it. */
static void test_late_headers(void)
{
	header_ms = DRIP_MS;
	CHECK(takes(1500, 10000, 4, 60));
	CHECK(takes(3500, 25000, 4, 500));
	CHECK(takes(11000, 60000, 10, 500));
}

int main(void)
{
	log_set_level(LOG_QUIET);
	RUN(test_free);
	RUN(test_busy);
	RUN(test_late_headers);
	return unit_result();
}
