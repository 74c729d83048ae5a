/* address.h - IPv4 addresses with ports: as numbers in host order, as text, and
 * as the sockets take them. */
#ifndef ADDRESS_H
#define ADDRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0		/* the programs ignore SIGPIPE; this is for other users */
#endif

struct address {
	uint32_t ip;
	uint16_t port;
};

#define ADDRESS_TEXT_SIZE 22	/* "255.255.255.255:65535" and its end */

/* Writes "IP:PORT" into text, and returns text. */
const char *address_text(struct address a, char text[ADDRESS_TEXT_SIZE]);

bool address_equal(struct address a, struct address b);

struct sockaddr_in;
struct sockaddr_in address_to_sockaddr(struct address a);
struct address address_from_sockaddr(const struct sockaddr_in *sa);

/* Sets *a to the address that the socket fd is bound to, or has for this
 * connection. Returns 0; or -1 with errno, and *a is not changed. */
int address_of_socket(int fd, struct address *a);

#endif
