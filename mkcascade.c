/* mkcascade.c - makes metafiles.
 *
 * A metafile holds two hashes of every byte: that of its chunk, and that of
 * the whole. Two processes compute them side by side, from one reading of the
 * file: the parent reads a piece into shared memory, hands it to the child, and
 * hashes the chunks in it while the child goes on with the hash of the whole. */
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

#include "args.h"
#include "csapp.h"
#include "log.h"
#include "metafile.h"
#include "sha256.h"

#define DEFAULT_CHUNK_SIZE (UINT64_C(1) << 20)
#define PIECE_SIZE ((size_t)256 << 10)	/* bytes read at a time: they stay in the CPU's cache */
#define PIECES 4			/* so many that neither process waits for the other */

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

struct piece {
	size_t length;		/* bytes; 0 means end of file */
	uint8_t bytes[PIECE_SIZE];
};

/* Both processes go round the pieces. A byte in the pipe `full` says that the
 * next one is filled, a byte in `empty` that one may be filled again; end of
 * file in either means that the other process is gone. */
struct whole_hasher {
	struct {
		struct piece piece[PIECES];
		uint8_t hash[SHA256_HASH_SIZE];
	} *shared;
	int full, empty;	/* the parent's ends */
	size_t next;		/* the piece that the parent fills next */
	pid_t child;
};

static void hash_whole(struct whole_hasher *w, int full, int empty)
{
	SHA256_CTX ctx;
	char token;

	sha256_init(&ctx);
	for (size_t i = 0; rio_readn(full, &token, 1) == 1; i = (i + 1) % PIECES) {
		const struct piece *piece = &w->shared->piece[i];
		if (piece->length == 0) {
			sha256_final(&ctx, w->shared->hash);
			_exit(EXIT_SUCCESS);
		}
		sha256_update(&ctx, piece->bytes, piece->length);
		if (rio_writen(empty, &token, 1) != 1)
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
static struct piece *next_piece(struct whole_hasher *w)
{
	struct piece *piece = &w->shared->piece[w->next];
	char token;

	if (rio_readn(w->empty, &token, 1) != 1)
		fatalx("the process that hashes the whole has died");
	w->next = (w->next + 1) % PIECES;
	return piece;
}

/* Hands over the piece that was filled last. */
static void hand_over(struct whole_hasher *w)
{
	char token = 0;

	if (rio_writen(w->full, &token, 1) != 1)
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

static void write_hash(struct chunk_hasher *c, SHA256_CTX *ctx)
{
	uint8_t hash[SHA256_HASH_SIZE];

	sha256_final(ctx, hash);
	Fwrite(hash, 1, sizeof hash, c->out);
}

/* Takes that many whole chunks. */
static void hash_whole_chunks(struct chunk_hasher *c, const uint8_t *bytes, size_t lanes)
{
	SHA256_CTX ctx[SHA256_LANES_MAX], *lane[SHA256_LANES_MAX];
	const uint8_t *data[SHA256_LANES_MAX];

	for (size_t l = 0; l < lanes; l++) {
		sha256_init(&ctx[l]);
		lane[l] = &ctx[l];
		data[l] = bytes + l * (size_t)c->chunk_size;
	}
	sha256_update_lanes(lane, data, (size_t)c->chunk_size, lanes);
	for (size_t l = 0; l < lanes; l++)
		write_hash(c, &ctx[l]);
}

static void hash_chunks(struct chunk_hasher *c, const uint8_t *bytes, size_t len)
{
	size_t lanes = sha256_lanes();

	while (len > 0) {
		size_t take;
		if (c->got == 0 && c->chunk_size <= len / lanes) {
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
				write_hash(c, &c->ctx);
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

/* Returns the number of bytes in the file. The chunk hashes go to out. */
static uint64_t hash_file(const char *path, int fd, uint64_t chunk_size, FILE *out,
			  uint8_t data_hash[SHA256_HASH_SIZE])
{
	struct chunk_hasher chunks = {.chunk_size = chunk_size, .out = out};
	struct whole_hasher whole;
	uint64_t length = 0;
	struct piece *piece;

	start_whole_hasher(&whole);
	do {
		piece = next_piece(&whole);
		ssize_t n = rio_readn(fd, piece->bytes, PIECE_SIZE);
		if (n < 0)
			fatal("%s: can't be read", path);
		piece->length = (size_t)n;
		hand_over(&whole);
		hash_chunks(&chunks, piece->bytes, piece->length);
		length += piece->length;
	} while (piece->length > 0);
	if (chunks.got > 0)
		write_hash(&chunks, &chunks.ctx);
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
