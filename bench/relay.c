/* relay.c - a line between two network namespaces, with a delay and a rate,
 * for kernels whose tc knows no netem.
 *
 *   relay NS1 IF1 NS2 IF2 DELAY_MS MBIT [QUEUE_KIB]
 *
 * Makes the tun device IF1 in the namespace NS1, and IF2 in NS2 (names as ip
 * netns gives them), and carries packets between them: a process for each
 * direction. A packet waits its turn in a queue of QUEUE_KIB (as much as the
 * line carries in a round trip, unless given), leaves at MBIT, and arrives
 * DELAY_MS later; what finds the queue full is lost. Runs until it is ended.
 *
 * Packets pass with the kernel's notes on them (IFF_VNET_HDR), so that one
 * read may carry many segments that are cut on no real wire either, and
 * checksums need not be computed. Rates count Ethernet's bytes all the same. */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PACKET_MAX (65536 + (int)sizeof(struct virtio_net_hdr))
#define ETHERNET_BYTES 38	/* around each segment: header, check, preamble, gap */
#define HEADER_BYTES 52		/* of IP and TCP, where the kernel doesn't say */
#define PACKETS_MAX (1u << 16)	/* under way at a time; a power of two */
#define READ_AT_ONCE 64		/* packets, before looking at the clock again */

struct packet {
	int64_t due_ns;
	int size;
	uint8_t *bytes;
};

/* One direction of the line. */
struct line {
	int in, out;
	int64_t delay_ns;
	double ns_per_byte;
	int64_t queue_ns;	/* to send a queue that is full */
	int64_t free_ns;	/* when all that was accepted has been sent */
	struct packet packets[PACKETS_MAX];
	unsigned first, end;	/* both count up, and wrap */
};

static int64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* Makes a tun device in a namespace, and stays there. */
static int make_tun(const char *namespace, const char *name)
{
	struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI | IFF_VNET_HDR};
	int note_size = sizeof(struct virtio_net_hdr);
	char path[256];

	snprintf(path, sizeof path, "/run/netns/%s", namespace);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, CLONE_NEWNET) < 0)
		err(1, "%s", path);
	close(fd);
	strncpy(request.ifr_name, name, sizeof request.ifr_name - 1);
	fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0 || ioctl(fd, TUNSETVNETHDRSZ, &note_size) < 0 ||
	    ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4) < 0)
		err(1, "can't make %s in %s", name, namespace);
	return fd;
}

/* What the packet would measure on a wire, cut into segments. */
static double bytes_on_wire(const uint8_t *packet, int size)
{
	struct virtio_net_hdr note;
	int ip, header, segments = 1;

	memcpy(&note, packet, sizeof note);
	ip = size - (int)sizeof note;
	header = note.hdr_len > 0 ? note.hdr_len : HEADER_BYTES;
	if (note.gso_type != VIRTIO_NET_HDR_GSO_NONE && note.gso_size > 0 && ip > header)
		segments = (ip - header + note.gso_size - 1) / note.gso_size;
	return ip + (segments - 1.0) * header + (double)segments * ETHERNET_BYTES;
}

/* Takes a packet onto the line, or loses it. */
static void accept_packet(struct line *l, const uint8_t *bytes, int size)
{
	int64_t now = clock_ns();

	if (l->free_ns < now)
		l->free_ns = now;
	if (l->free_ns - now > l->queue_ns || l->end - l->first == PACKETS_MAX)
		return;
	l->free_ns += (int64_t)(bytes_on_wire(bytes, size) * l->ns_per_byte);
	struct packet *p = &l->packets[l->end++ % PACKETS_MAX];
	*p = (struct packet){.due_ns = l->free_ns + l->delay_ns, .size = size, .bytes = malloc((size_t)size)};
	if (p->bytes == NULL)
		err(1, "memory");
	memcpy(p->bytes, bytes, (size_t)size);
}

static void accept_packets(struct line *l)
{
	static uint8_t bytes[PACKET_MAX];

	for (int i = 0; i < READ_AT_ONCE; i++) {
		ssize_t n = read(l->in, bytes, sizeof bytes);
		if (n > (ssize_t)sizeof(struct virtio_net_hdr))
			accept_packet(l, bytes, (int)n);
		else if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		else if (n < 0 && errno != EIO && errno != EBADFD)	/* these: the device isn't up yet */
			err(1, "read");
		else if (n < 0) {
			usleep(1000);
			return;
		}
	}
}

static void deliver_packets(struct line *l)
{
	while (l->first != l->end) {
		struct packet *p = &l->packets[l->first % PACKETS_MAX];
		if (p->due_ns > clock_ns())
			return;
		if (write(l->out, p->bytes, (size_t)p->size) < 0 && errno != EIO && errno != EAGAIN)
			warn("write");
		free(p->bytes);
		l->first++;
	}
}

static void run_line(struct line *l)
{
	struct pollfd in = {.fd = l->in, .events = POLLIN};

	prctl(PR_SET_PDEATHSIG, SIGTERM);
	prctl(PR_SET_TIMERSLACK, 1ul);
	for (;;) {
		struct timespec wait = {0}, *limit = NULL;
		deliver_packets(l);
		if (l->first != l->end) {
			int64_t ns = l->packets[l->first % PACKETS_MAX].due_ns - clock_ns();
			if (ns > 0)
				wait = (struct timespec){ns / 1000000000, ns % 1000000000};
			limit = &wait;
		}
		if (ppoll(&in, 1, limit, NULL) > 0)
			accept_packets(l);
	}
}

static void start_line(int in, int out, double delay_ms, double mbit, double queue_bytes)
{
	pid_t pid = fork();

	if (pid < 0)
		err(1, "fork");
	if (pid > 0)
		return;
	struct line *l = calloc(1, sizeof *l);
	if (l == NULL)
		err(1, "memory");
	l->in = in;
	l->out = out;
	l->delay_ns = (int64_t)(delay_ms * 1e6);
	l->ns_per_byte = 8e3 / mbit;
	l->queue_ns = (int64_t)(queue_bytes * l->ns_per_byte);
	run_line(l);
}

static double number(const char *text)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end != '\0' || value < 0)
		errx(2, "not a number: %s", text);
	return value;
}

int main(int argc, char **argv)
{
	if (argc != 7 && argc != 8)
		errx(2, "usage: relay NS1 IF1 NS2 IF2 DELAY_MS MBIT [QUEUE_KIB]");
	double delay_ms = number(argv[5]), mbit = number(argv[6]);
	if (mbit == 0)
		errx(2, "a line of 0 Mbit/s carries nothing");
	double queue_bytes = argc > 7 ? number(argv[7]) * 1024 : mbit * 1e6 / 8 * 2 * delay_ms / 1000;
	int one = make_tun(argv[1], argv[2]), two = make_tun(argv[3], argv[4]);
	start_line(one, two, delay_ms, mbit, queue_bytes);
	start_line(two, one, delay_ms, mbit, queue_bytes);
	close(one);
	close(two);
	puts("ready");
	fflush(stdout);
	wait(NULL);		/* neither direction ends by itself */
	return 1;
}
