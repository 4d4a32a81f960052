/* The program of containers that send before they do anything else.
 *
 *   sender once ADDRESS PORT     sends a datagram and a SYN as its first two acts, repeats the datagram until it is answered and waits
 *                                for the connection; then prints its own address and how many datagrams that took.
 *   sender always ADDRESS PORT   sends a datagram every 20 ms, each from a new port: each is a flow of its own.
 *   sender SOURCE ADDRESS PORT   sends ten datagrams with this source, whoever has it (CAP_NET_RAW).
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int once(const struct sockaddr_in *to) {
  int datagrams = socket(AF_INET, SOCK_DGRAM, 0);
  connect(datagrams, (const struct sockaddr *)to, sizeof *to);
  send(datagrams, "?\n", 2, 0);
  int stream = socket(AF_INET, SOCK_STREAM, 0);
  fcntl(stream, F_SETFL, O_NONBLOCK);
  connect(stream, (const struct sockaddr *)to, sizeof *to);

  char answer[128];
  int sent = 1;
  struct pollfd answered = {datagrams, POLLIN, 0}, connected = {stream, POLLIN, 0};
  while (poll(&answered, 1, 100) <= 0 || recv(datagrams, answer, sizeof answer, 0) <= 0) {
    if (sent++ == 900) return 1;
    send(datagrams, "?\n", 2, 0);
  }
  /* A dropped SYN is repeated after 1 s, 3 s, 7 s, 15 s, 31 s and 63 s. */
  if (poll(&connected, 1, 90000) <= 0 || recv(stream, answer, sizeof answer, 0) <= 0) return 2;
  struct sockaddr_in own;
  socklen_t length = sizeof own;
  getsockname(datagrams, (struct sockaddr *)&own, &length);
  printf("%s %d\n", inet_ntoa(own.sin_addr), sent);
  return 0;
}

static int as(const char *source, const struct sockaddr_in *to) {
  struct {
    struct iphdr ip;
    struct udphdr udp;
    char data[2];
  } packet = {{.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP, .daddr = to->sin_addr.s_addr}, {}, "?"};
  if (!inet_aton(source, (struct in_addr *)&packet.ip.saddr)) return 3;
  int raw = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
  packet.udp.dest = to->sin_port;
  packet.udp.len = htons(sizeof packet.udp + sizeof packet.data);
  for (int port = 20000; port < 20010; port++) {
    packet.udp.source = htons(port);
    if (sendto(raw, &packet, sizeof packet, 0, (const struct sockaddr *)to, sizeof *to) < 0) return 4;
  }
  return 0;
}

int main(int count, char **arguments) {
  struct sockaddr_in to = {.sin_family = AF_INET};
  if (count != 4 || !inet_aton(arguments[2], &to.sin_addr)) return 3;
  to.sin_port = htons(atoi(arguments[3]));
  if (strcmp(arguments[1], "once") == 0) return once(&to);
  if (strcmp(arguments[1], "always") != 0) return as(arguments[1], &to);
  for (;;) {
    int datagram = socket(AF_INET, SOCK_DGRAM, 0);
    sendto(datagram, "?\n", 2, 0, (struct sockaddr *)&to, sizeof to);
    close(datagram);
    usleep(20000);
  }
}
