// The progress of a TCP connection, as reported by the system. Any thread.
#ifndef IMAGEND_HTTP_TCP_H
#define IMAGEND_HTTP_TCP_H

#include <stdbool.h>
#include <stdint.h>

struct http_tcp {
    uint64_t received, acked; // bytes received, and sent bytes that were acknowledged
    bool pending;             // some sent bytes are not acknowledged yet
    bool ended;               // the peer will send no more
};

// False, leaving *out unchanged, if the system does not report it.
bool http_tcp_look(int fd, struct http_tcp *out);

#endif
