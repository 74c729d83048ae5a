/* address.c - an IPv4 address with a port. */
#include "net/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

const char *address_text(struct address a, char text[ADDRESS_TEXT_SIZE])
{
	snprintf(text, ADDRESS_TEXT_SIZE, "%u.%u.%u.%u:%u", a.ip >> 24 & 255u, a.ip >> 16 & 255u,
		 a.ip >> 8 & 255u, a.ip & 255u, (unsigned)a.port);
	return text;
}

bool address_equal(struct address a, struct address b)
{
	return a.ip == b.ip && a.port == b.port;
}

struct sockaddr_in address_to_sockaddr(struct address a)
{
	struct sockaddr_in sa;

	memset(&sa, 0, sizeof sa);
	sa.sin_family = AF_INET;
	sa.sin_addr.s_addr = htonl(a.ip);
	sa.sin_port = htons(a.port);
	return sa;
}

struct address address_from_sockaddr(const struct sockaddr_in *sa)
{
	return (struct address){.ip = ntohl(sa->sin_addr.s_addr), .port = ntohs(sa->sin_port)};
}

int address_of_socket(int fd, struct address *a)
{
	struct sockaddr_in sa;
	socklen_t len = sizeof sa;

	if (getsockname(fd, (struct sockaddr *)&sa, &len) < 0)
		return -1;
	*a = address_from_sockaddr(&sa);
	return 0;
}
