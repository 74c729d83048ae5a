/* test_address.c - addresses as text, and as the sockets take them. */
#include "net/address.h"

#include <string.h>

#include "unit.h"

static void test_addresses(void)
{
	static const struct {
		struct address address;
		const char *text;
	} known[] = {
		{{0, 0}, "0.0.0.0:0"},
		{{0x7f000001, 8888}, "127.0.0.1:8888"},
		{{0xc0a80102, 1}, "192.168.1.2:1"},
		{{0xffffffff, 65535}, "255.255.255.255:65535"},
	};
	char text[ADDRESS_TEXT_SIZE + 1];

	CHECK(strlen(known[3].text) + 1 == ADDRESS_TEXT_SIZE);
	for (size_t i = 0; i < LENGTH(known); i++) {
		text[ADDRESS_TEXT_SIZE] = 'G';
		CHECK(address_text(known[i].address, text) == text);
		CHECK(strcmp(text, known[i].text) == 0 && text[ADDRESS_TEXT_SIZE] == 'G');
	}
}

static void test_sockaddr(void)
{
	static const uint8_t ip[] = {10, 20, 30, 40}, port[] = {0x12, 0x34};
	struct address a = {0x0a141e28, 0x1234}, back;
	struct sockaddr_in sa = address_to_sockaddr(a);

	CHECK(sa.sin_family == AF_INET);
	CHECK(memcmp(&sa.sin_addr.s_addr, ip, 4) == 0);
	CHECK(memcmp(&sa.sin_port, port, 2) == 0);
	back = address_from_sockaddr(&sa);
	CHECK(back.ip == a.ip && back.port == a.port);
}

static void test_address_of_socket(void)
{
	struct sockaddr_in sa = address_to_sockaddr((struct address){INADDR_LOOPBACK, 0});
	struct address a = {1, 2};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	CHECK(address_of_socket(-1, &a) == -1 && errno == EBADF && a.ip == 1 && a.port == 2);
	CHECK(bind(fd, (struct sockaddr *)&sa, sizeof sa) == 0);
	CHECK(address_of_socket(fd, &a) == 0 && a.ip == INADDR_LOOPBACK && a.port != 0);
	close(fd);
}

int main(void)
{
	RUN(test_addresses);
	RUN(test_sockaddr);
	RUN(test_address_of_socket);
	return unit_result();
}
