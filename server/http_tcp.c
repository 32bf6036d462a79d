// See http_tcp.h. A separate file, because the kernel's header conflicts with the C library's,
// which microhttpd.h includes, and only the kernel's counts bytes. Any thread.
#include "http_tcp.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>

bool http_tcp_look(int fd, struct http_tcp *out)
{
    enum { CLOSE_WAIT = 8 }; // one of the kernel's TCP states
    struct tcp_info info;
    socklen_t n = sizeof info;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &n) ||
        n < offsetof(struct tcp_info, tcpi_notsent_bytes) + sizeof info.tcpi_notsent_bytes)
        return false;
    out->received = info.tcpi_bytes_received;
    out->acked = info.tcpi_bytes_acked;
    out->pending = info.tcpi_unacked || info.tcpi_notsent_bytes;
    out->ended = info.tcpi_state == CLOSE_WAIT;
    return true;
}
