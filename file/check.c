/* check.c - compares chunks in the data file with their hashes in the metafile, and puts
 * those that match into the map of held chunks. Run by the workers at the start, and by
 * the checkers after that. Only chunks in holes, whose bytes needn't be read, are put into the
 * map elsewhere (scan.c). */
#include "file/check.h"

#include <errno.h>
#include <string.h>

#include "file/lanes.h"

/* A chunk that matches is proof that the file belongs to the metafile, if it can't match by
 * chance: it has at least so many bytes, and they are not one byte repeated. Zeros, and
 * what erased flash memory holds, are in many files; so is a newline at the end. */
#define PROOF_MIN SHA256_HASH_SIZE

/* What is checked. */
struct check {
	struct metafile *m;
	int fd;			/* the data file */
	struct held *held;
};

/* Chunks of the same length that are hashed at the same time, each with the run that it
 * is part of. */
struct group {
	size_t count;
	uint64_t chunk[LANES_MAX];
	struct run *run[LANES_MAX];
	struct lane lane[LANES_MAX];
};

/* Whether the chunk, which matches, proves that the file belongs to the metafile. */
static bool is_proof(const struct check *c, uint64_t chunk, const struct lane *lane)
{
	return lane->varied && metafile_chunk_length(c->m, chunk) >= PROOF_MIN;
}

/* The chunk was hashed: puts it down as held or as bad. */
static void judge(const struct check *c, struct run *run, uint64_t chunk, const struct lane *lane)
{
	const uint8_t *right_hash = metafile_chunk_hash(c->m, chunk);

	if (right_hash == NULL)
		run->metafile_error = errno;
	if (right_hash == NULL || memcmp(lane->hash, right_hash, SHA256_HASH_SIZE) != 0) {
		run->bad++;
		return;
	}
	held_add(c->held, chunk);
	if (is_proof(c, chunk, lane) && !atomic_load(&c->held->proven))
		atomic_store(&c->held->proven, true);
}

/* Hashes chunks of the group from that lane on. 0, or an errno. */
static int hash(const struct check *c, struct group *g, size_t lane, size_t count)
{
	return lanes_hash(&g->lane[lane], count, metafile_chunk_length(c->m, g->chunk[lane]), c->fd,
			  !atomic_load(&c->held->proven));
}

/* One chunk may be readable where another is not. */
static void check_one_by_one(const struct check *c, struct group *g)
{
	for (size_t l = 0; l < g->count; l++) {
		int error = hash(c, g, l, 1);
		if (error == 0) {
			judge(c, g->run[l], g->chunk[l], &g->lane[l]);
		} else {
			g->run[l]->error = error;
			g->run[l]->bad++;
		}
	}
}

/* Checks the group's chunks, and empties it. */
static void check_group(const struct check *c, struct group *g)
{
	if (g->count > 0 && hash(c, g, 0, g->count) == 0)
		for (size_t l = 0; l < g->count; l++)
			judge(c, g->run[l], g->chunk[l], &g->lane[l]);
	else
		check_one_by_one(c, g);
	g->count = 0;
}

/* Adds a chunk to the group; checks the group when it is full. The last chunk of the
 * file, which may be shorter, is a group by itself. */
static void add_to_group(const struct check *c, struct group *g, struct run *run, uint64_t chunk)
{
	bool is_last = chunk == c->m->chunks - 1;

	if (is_last)
		check_group(c, g);
	g->chunk[g->count] = chunk;
	g->run[g->count] = run;
	g->lane[g->count].offset = metafile_chunk_offset(c->m, chunk);
	g->count++;
	if (is_last || g->count == lanes_best_count())
		check_group(c, g);
}

void check_runs(struct metafile *m, int fd, struct run runs[], size_t count, struct held *held)
{
	const struct check c = {m, fd, held};
	struct group group = {0};

	for (size_t r = 0; r < count; r++) {
		struct run *run = &runs[r];
		run->bad = 0;
		run->error = run->metafile_error = 0;
		for (uint64_t i = 0; i < run->count; i++)
			add_to_group(&c, &group, run, run->first + i);
	}
	check_group(&c, &group);
	lanes_forget();
}
