// Responses in the format of each API, and HTTP errors from faults. Loop thread.
#include "router_impl.h"

#include "buf.h"
#include "http.h"
#include "log.h"
#include "text.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void call_json(struct call *c, int status, struct buf *body)
{
    http_reply(c->http, status, "application/json", body);
}

const char *scope_name(enum scope s)
{
    switch (s) {
    case SCOPE_READ: return "read";
    case SCOPE_GENERATE: return "generate";
    case SCOPE_ADMIN: return "admin";
    default: return "none";
    }
}

static const char *error_type(int status)
{
    if (status == 401)
        return "authentication_error";
    if (status == 403)
        return "permission_error";
    if (status == 429)
        return "rate_limit_error";
    return status >= 500 ? "server_error" : "invalid_request_error";
}

static const char *error_code(int status)
{
    switch (status) {
    case 401: return "invalid_api_key";
    case 403: return "insufficient_scope";
    case 404: return "not_found";
    case 405: return "method_not_allowed";
    case 411: return "length_required";
    case 413: return "request_too_large";
    case 415: return "unsupported_media_type";
    case 421: return "unknown_host";
    case 429: return "rate_limit_exceeded";
    case 431: return "headers_too_large";
    case 503: return "unavailable";
    default: return status >= 500 ? "internal_error" : "invalid_value";
    }
}

void call_error(struct call *c, int status, const char *code, const char *param, const char *fmt,
                ...)
{
    char msg[512];
    struct buf b = {0};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    if (c->errors == ERRORS_A1111) {
        buf_printf(&b, "{\"error\":\"%s\",\"detail\":",
                   status == 422 ? "RequestValidationError" : "HTTPException");
        text_json(&b, msg);
        buf_puts(&b, ",\"body\":\"\",\"errors\":");
        text_json(&b, msg);
        buf_puts(&b, "}");
    } else {
        buf_puts(&b, "{\"error\":{\"message\":");
        text_json(&b, msg);
        buf_printf(&b, ",\"type\":\"%s\",\"param\":", error_type(status));
        text_json(&b, param && *param ? param : NULL);
        buf_puts(&b, ",\"code\":");
        text_json(&b, code ? code : error_code(status));
        buf_puts(&b, "}}");
    }
    call_json(c, status, &b);
}

int fault_status(const struct fault *why)
{
    switch (why->code) {
    case ERR_INVALID:
    case ERR_UNSUPPORTED: return 400;
    case ERR_NOT_FOUND: return 404;
    case ERR_CANCELLED: return 410;
    case ERR_BUSY: return strcmp(why->param, "queue") ? 503 : 429;
    case ERR_TIMEOUT: return 504;
    case ERR_NO_DEVICE:
    case ERR_DEVICE_LOST: return 503;
    case ERR_IO: return 507;
    default: return 500;
    }
}

void call_set_retry(struct call *c, double seconds)
{
    // Clients honor 1 to 60 seconds; a shorter value would only increase the load.
    const double s = ceil(seconds);
    http_set_header(c->http, "Retry-After", "%d", s < 1 ? 1 : s > 60 ? 60 : (int)s);
}

void call_fault(struct call *c, const struct fault *from, double retry)
{
    struct fault shown = *from, *why = &shown;
    int status = fault_status(why);
    const char *code = NULL;
    // INVALID faults quote only the request; others may contain paths on this machine.
    if (why->code != ERR_INVALID && fault_hide_paths(why))
        log_msg(LOG_WARN, "http", "%s: %s", http_id(c->http), from->msg);
    if (status == 429 || status == 503)
        call_set_retry(c, retry);
    if (status == 429)
        code = "queue_full";
    else if (why->code == ERR_NOT_FINITE)
        code = err_name(why->code);
    if (status == 400 && c->errors == ERRORS_A1111)
        status = 422;
    call_error(c, status, code, status < 500 ? why->param : NULL, "%s", why->msg);
}

void call_over_rate(struct call *c, double retry)
{
    call_set_retry(c, retry);
    call_error(c, 429, NULL, NULL, "the rate limit of this API key is exceeded");
}
