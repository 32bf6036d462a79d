// Server-sent events. Loop thread.
#ifndef IMAGEND_SSE_H
#define IMAGEND_SSE_H

#include <stdbool.h>
#include <stdint.h>

struct http_request;

// Starts the stream; gone: as in http_stream.
void sse_start(struct http_request *r, void (*gone)(void *ctx), void *ctx);
// Writes one event; id 0: no id. data is one line of JSON. False as in http_stream_write.
bool sse_event(struct http_request *r, const char *event, uint64_t id, const char *data);

#endif
