// What the system knows of a TCP connection's progress. Any thread.
#ifndef IMAGEND_HTTP_TCP_H
#define IMAGEND_HTTP_TCP_H

#include <stdbool.h>
#include <stdint.h>

struct http_tcp {
    uint64_t received, acked; // bytes from the other side, and of ours that it has
    bool pending;             // it does not have all of ours
    bool ended;               // it sends no more
};

// False, and *out stays, where the system does not tell.
bool http_tcp_look(int fd, struct http_tcp *out);

#endif
