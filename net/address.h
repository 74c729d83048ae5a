/* address.h - an IPv4 address with a port: as numbers in host order, as text, and as
 * a sockaddr. */
#ifndef ADDRESS_H
#define ADDRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0		/* the programs ignore SIGPIPE anyway */
#endif

struct address {
	uint32_t ip;
	uint16_t port;
};

#define ADDRESS_TEXT_SIZE 22	/* "255.255.255.255:65535" and its end */

/* Writes "IP:PORT" into text. Returns text. */
const char *address_text(struct address a, char text[ADDRESS_TEXT_SIZE]);

bool address_equal(struct address a, struct address b);

struct sockaddr_in;
struct sockaddr_in address_to_sockaddr(struct address a);
struct address address_from_sockaddr(const struct sockaddr_in *sa);

/* Sets *a to the socket's own address. Returns 0; or -1 with errno, and leaves *a as
 * it was. */
int address_of_socket(int fd, struct address *a);

#endif
