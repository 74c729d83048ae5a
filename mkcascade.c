/* mkcascade.c - makes metafiles.
 *
 * A metafile holds two hashes of every byte: that of its chunk, and that of
 * the whole. Two processes compute them side by side, from one reading of the
 * file: the parent reads a piece into shared memory, hands it to the child, and
 * hashes the chunks in it while the child goes on with the hash of the whole.
 * That one can only be computed byte after byte, and takes longest: its process
 * does nothing else. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/args.h"
#include "csapp.h"
#include "base/log.h"
#include "file/metafile.h"
#include "sha256.h"

#define DEFAULT_CHUNK_SIZE (UINT64_C(1) << 20)
#define PIECE_SIZE ((size_t)16 << 20)	/* bytes: SHA256_LANES_MAX chunks of the default size */
#define PIECES 2			/* so that neither process waits for the other */
#define STEP_SIZE ((size_t)256 << 10)	/* bytes read at a time, and handed over */

static const char usage_text[] =
	"usage: mkcascade [-b CHUNK_SIZE] [-o OUT.cascade] FILE...\n";

static const char help_text[] =
	"Writes a metafile, FILE.cascade, for each FILE.\n"
	"\n"
	"  -b, --chunk-size SIZE  bytes in a chunk; K, M, G multiply by 1024 (default 1M)\n"
	"  -o, --output OUT       the metafile's name, where there is only one FILE\n"
	"  -h, --help             print this and exit\n"
	"  -V, --version          print the version and exit\n";

/* The name of the unfinished metafile, or empty: what a signal must remove. */
static char temporary[4096];

/* ---- the hash of the whole ----------------------------------------------- */

/* Both processes go round the pieces. The pipe `full` carries the number of bytes
 * that were added, or 0 at the end of the file; a byte in `empty` says that a
 * piece may be filled again. End of file in either means that the other process
 * is gone. */
struct whole_hasher {
	struct {
		uint8_t bytes[PIECES * PIECE_SIZE];
		uint8_t hash[SHA256_HASH_SIZE];
	} *shared;
	int full, empty;	/* the parent's ends */
	size_t next;		/* the piece that the parent fills next */
	pid_t child;
};

static void hash_whole(struct whole_hasher *w, int full, int empty)
{
	SHA256_CTX ctx;
	size_t length;

	sha256_init(&ctx);
	for (size_t at = 0; rio_readn(full, &length, sizeof length) == sizeof length; ) {
		if (length == 0) {
			sha256_final(&ctx, w->shared->hash);
			_exit(EXIT_SUCCESS);
		}
		sha256_update(&ctx, w->shared->bytes + at, length);
		at = (at + length) % sizeof w->shared->bytes;
		if (at % PIECE_SIZE == 0 && rio_writen(empty, "", 1) != 1)
			break;
	}
	_exit(EXIT_FAILURE);
}

static void start_whole_hasher(struct whole_hasher *w)
{
	static char tokens[PIECES];
	int full[2], empty[2];

	w->shared = Mmap(NULL, sizeof *w->shared, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (pipe(full) < 0 || pipe(empty) < 0)
		fatal("can't make a pipe");
	if (rio_writen(empty[1], tokens, PIECES) != PIECES)
		fatal("can't write to a pipe");
	w->child = Fork();
	if (w->child == 0) {
		Signal(SIGINT, SIG_DFL);	/* the temporary file is the parent's */
		Signal(SIGTERM, SIG_DFL);
		Signal(SIGHUP, SIG_DFL);
		close(full[1]);
		close(empty[0]);
		hash_whole(w, full[0], empty[1]);
	}
	close(full[0]);
	close(empty[1]);
	w->full = full[1];
	w->empty = empty[0];
	w->next = 0;
}

/* Waits for a piece that may be filled. */
static uint8_t *next_piece(struct whole_hasher *w)
{
	uint8_t *piece = w->shared->bytes + w->next * PIECE_SIZE;
	char token;

	if (rio_readn(w->empty, &token, 1) != 1)
		fatalx("the process that hashes the whole has died");
	w->next = (w->next + 1) % PIECES;
	return piece;
}

/* Hands over so many bytes more, or the end of the file. */
static void hand_over(struct whole_hasher *w, size_t length)
{
	if (rio_writen(w->full, &length, sizeof length) != sizeof length)
		fatalx("the process that hashes the whole has died");
}

/* Waits for the hash of all that was handed over. */
static void finish_whole_hasher(struct whole_hasher *w, uint8_t hash[SHA256_HASH_SIZE])
{
	int status;

	Waitpid(w->child, &status, 0);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		fatalx("the process that hashes the whole has died");
	memcpy(hash, w->shared->hash, SHA256_HASH_SIZE);
	close(w->full);
	close(w->empty);
	Munmap(w->shared, sizeof *w->shared);
}

/* ---- the hashes of the chunks -------------------------------------------- */

struct chunk_hasher {
	SHA256_CTX ctx;		/* of the chunk that has begun */
	uint64_t chunk_size, got;	/* bytes; how many of that chunk came */
	FILE *out;
};

/* Ends the chunk that has begun. */
static void write_hash(struct chunk_hasher *c)
{
	uint8_t hash[SHA256_HASH_SIZE];

	sha256_final(&c->ctx, hash);
	Fwrite(hash, 1, sizeof hash, c->out);
}

/* Takes that many whole chunks. */
static void hash_whole_chunks(struct chunk_hasher *c, const uint8_t *bytes, size_t lanes)
{
	SHA256_CTX ctx[SHA256_LANES_MAX], *ctxs[SHA256_LANES_MAX];
	uint8_t hash[SHA256_LANES_MAX][SHA256_HASH_SIZE], *hashes[SHA256_LANES_MAX];
	const uint8_t *data[SHA256_LANES_MAX];

	for (size_t l = 0; l < lanes; l++) {
		ctxs[l] = &ctx[l];
		hashes[l] = hash[l];
		data[l] = bytes + l * (size_t)c->chunk_size;
		sha256_init(&ctx[l]);
	}
	sha256_update_lanes(ctxs, data, (size_t)c->chunk_size, lanes);
	sha256_final_lanes(ctxs, hashes, lanes);
	Fwrite(hash, SHA256_HASH_SIZE, lanes, c->out);
}

static void hash_chunks(struct chunk_hasher *c, const uint8_t *bytes, size_t len)
{
	while (len > 0) {
		size_t take, lanes = sha256_lanes();
		if (lanes > len / c->chunk_size)
			lanes = (size_t)(len / c->chunk_size);
		if (c->got == 0 && lanes > 0) {
			hash_whole_chunks(c, bytes, lanes);
			take = lanes * (size_t)c->chunk_size;
		} else {
			uint64_t missing = c->chunk_size - c->got;
			take = missing < len ? (size_t)missing : len;
			if (c->got == 0)
				sha256_init(&c->ctx);
			sha256_update(&c->ctx, bytes, take);
			c->got += take;
			if (c->got == c->chunk_size) {
				write_hash(c);
				c->got = 0;
			}
		}
		bytes += take;
		len -= take;
	}
}

/* ---- one metafile -------------------------------------------------------- */

static void remove_temporary(void)
{
	if (temporary[0] != '\0')
		unlink(temporary);
}

static void on_signal(int sig)
{
	remove_temporary();
	signal(sig, SIG_DFL);
	raise(sig);
}

/* Opens a new file beside where it is to end up. */
static FILE *open_temporary(const char *out)
{
	int n = snprintf(temporary, sizeof temporary, "%s.XXXXXX", out);
	mode_t mask = umask(0);

	umask(mask);
	if (n < 0 || (size_t)n >= sizeof temporary) {
		temporary[0] = '\0';
		errno = ENAMETOOLONG;
		fatal("%s", out);
	}
	int fd = mkstemp(temporary);
	if (fd < 0) {
		temporary[0] = '\0';
		fatal("%s: can't be made", out);
	}
	if (fchmod(fd, 0666 & ~mask) < 0)
		fatal("%s", temporary);
	return Fdopen(fd, "wb");
}

/* Reads a piece into *piece, and hands it over step by step. Returns its length,
 * which is less than the size of a piece at the end of the file, and only there. */
static size_t read_piece(const char *path, int fd, struct whole_hasher *w, uint8_t **piece)
{
	size_t length = 0;
	ssize_t n;

	*piece = next_piece(w);
	do {
		size_t left = PIECE_SIZE - length;
		n = rio_readn(fd, *piece + length, left < STEP_SIZE ? left : STEP_SIZE);
		if (n < 0)
			fatal("%s: can't be read", path);
		hand_over(w, (size_t)n);
		length += (size_t)n;
	} while (n > 0 && length < PIECE_SIZE);
	return length;
}

/* Returns the number of bytes in the file. The chunk hashes go to out. */
static uint64_t hash_file(const char *path, int fd, uint64_t chunk_size, FILE *out,
			  uint8_t data_hash[SHA256_HASH_SIZE])
{
	struct chunk_hasher chunks = {.chunk_size = chunk_size, .out = out};
	struct whole_hasher whole;
	uint64_t length = 0;
	uint8_t *piece;
	size_t got;

	start_whole_hasher(&whole);
	do {
		got = read_piece(path, fd, &whole, &piece);
		hash_chunks(&chunks, piece, got);
		length += got;
	} while (got == PIECE_SIZE);
	if (chunks.got > 0)
		write_hash(&chunks);
	finish_whole_hasher(&whole, data_hash);
	return length;
}

static void make_metafile(const char *path, const char *out_path, uint64_t chunk_size)
{
	uint8_t header[METAFILE_HEADER_SIZE] = {0}, data_hash[SHA256_HASH_SIZE];
	struct stat st, old;

	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		fatal("%s", path);
	if (!S_ISREG(st.st_mode))
		fatalx("%s: not a regular file", path);
	if (stat(out_path, &old) == 0 && old.st_ino == st.st_ino && old.st_dev == st.st_dev)
		fatalx("%s: its metafile would overwrite it", path);
	FILE *out = open_temporary(out_path);
	Fwrite(header, 1, sizeof header, out);
	uint64_t length = hash_file(path, fd, chunk_size, out, data_hash);
	metafile_encode_header(header, length, chunk_size, data_hash);
	if (fseek(out, 0, SEEK_SET) < 0)
		fatal("%s", temporary);
	Fwrite(header, 1, sizeof header, out);
	/* On the disk before it gets its name, so that the name never stands
	 * for half a metafile. */
	if (fflush(out) != 0 || fsync(fileno(out)) < 0 || fclose(out) != 0)
		fatal("%s", temporary);
	if (rename(temporary, out_path) < 0)
		fatal("%s: can't be made", out_path);
	temporary[0] = '\0';
	close(fd);
}

/* ---- command line -------------------------------------------------------- */

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"chunk-size", required_argument, NULL, 'b'},
		{"output", required_argument, NULL, 'o'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{0},
	};
	uint64_t chunk_size = DEFAULT_CHUNK_SIZE;
	const char *out = NULL;
	int option;

	args_program("mkcascade", usage_text, help_text);
	while ((option = getopt_long(argc, argv, "b:o:hV", options, NULL)) != -1)
		switch (option) {
		case 'b':
			if (!args_size(optarg, 1, METAFILE_LENGTH_MAX, &chunk_size))
				args_misuse("not a chunk size: %s", optarg);
			break;
		case 'o':
			out = optarg;
			break;
		case 'h': args_help();
		case 'V': args_version();
		default: args_misuse(NULL);
		}
	if (optind == argc)
		args_misuse("no FILE");
	if (out != NULL && argc - optind > 1)
		args_misuse("--output goes with one FILE");
	if (out != NULL && strlen(out) == 0)
		args_misuse("--output needs a name");

	atexit(remove_temporary);
	Signal(SIGINT, on_signal);
	Signal(SIGTERM, on_signal);
	Signal(SIGHUP, on_signal);
	Signal(SIGPIPE, SIG_IGN);	/* a dead child is an error of write, */
	Signal(SIGXFSZ, SIG_IGN);	/* and so is a file that may not grow */
	for (; optind < argc; optind++) {
		char name[sizeof temporary];
		int n = snprintf(name, sizeof name, "%s%s", out != NULL ? out : argv[optind],
				 out != NULL ? "" : METAFILE_SUFFIX);
		if (n < 0 || (size_t)n >= sizeof name)
			fatalx("%s: its name is too long", argv[optind]);
		make_metafile(argv[optind], name, chunk_size);
	}
	return 0;
}
