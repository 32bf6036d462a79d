// Writes text/event-stream to an HTTP stream. Loop thread; called by the routes that stream.
#include "sse.h"

#include "buf.h"
#include "http.h"

void sse_start(struct http_request *r, void (*gone)(void *ctx), void *ctx)
{
    http_set_header(r, "Cache-Control", "no-store");
    http_set_header(r, "X-Accel-Buffering", "no");
    http_stream(r, 200, "text/event-stream; charset=utf-8", gone, ctx);
    http_stream_keepalive(r, ":\n\n");
}

bool sse_event(struct http_request *r, const char *event, uint64_t id, const char *data)
{
    struct buf b = {0};
    buf_printf(&b, "event: %s\n", event);
    if (id)
        buf_printf(&b, "id: %llu\n", (unsigned long long)id);
    buf_puts(&b, "data: ");
    buf_puts(&b, data);
    buf_puts(&b, "\n\n");
    const bool ok = !b.failed && http_stream_write(r, b.data, b.len);
    buf_deinit(&b);
    return ok;
}
