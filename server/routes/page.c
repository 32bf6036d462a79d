// The web page and the API description for people: "/", its files, and /docs, which is generated
// from the tables that validate requests. Loop thread.
#include "app.h"

#include "buf.h"
#include "http.h"
#include "page_data.h"

#include <string.h>

static void set_page_headers(struct call *c)
{
    http_set_header(c->http, "Content-Security-Policy",
                    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: "
                    "data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
                    "frame-ancestors 'none'");
    http_set_header(c->http, "Cross-Origin-Opener-Policy", "same-origin");
    http_set_header(c->http, "Cache-Control", "no-cache");
}

static void reply_file(struct call *c, const char *name)
{
    for (const struct page_file *f = page_files; f->name; f++) {
        if (strcmp(f->name, name))
            continue;
        set_page_headers(c);
        http_reply_bytes(c->http, 200, f->type, f->data, f->size, NULL, NULL);
        return;
    }
    call_error(c, 404, NULL, NULL, "the page has no file %.100s", name);
}

static void page_get(struct call *c)
{
    reply_file(c, "index.html");
}

static void file_get(struct call *c)
{
    reply_file(c, c->arg[0]);
}

// ---- /docs --------------------------------------------------------------------------------------

static void add_html(struct buf *b, const char *s)
{
    for (; *s; s++) {
        if (*s == '<')
            buf_puts(b, "&lt;");
        else if (*s == '&')
            buf_puts(b, "&amp;");
        else
            buf_putc(b, *s);
    }
}

static void add_fields(struct buf *b, const struct check_table *t)
{
    buf_puts(b, "<table><tr><th>field<th>default<th>meaning");
    const struct check_field *f;
    for (int row = 0; (f = check_next(t, &row, NULL));) {
        if (f->flags & CHECK_HIDDEN)
            continue;
        buf_printf(b, "<tr><td><code>%s</code>%s<td>%s<td>", f->name,
                   f->flags & CHECK_REQUIRED ? " (required)" : "", f->def ? f->def : "");
        add_html(b, f->help);
        for (int k = 0; f->choices && f->choices[k]; k++)
            buf_printf(b, "%s%s", k ? ", " : ": ", f->choices[k]);
        if (!f->choices && f->max > 0 && f->type != CHECK_TEXT)
            buf_printf(b, "; %.15g to %.15g", f->min, f->max);
    }
    buf_puts(b, "</table>");
}

static void docs_get(struct call *c)
{
    struct buf b = {0};
    const struct route *r;
    int at = 0;
    buf_puts(
        &b,
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport "
        "content=\"width=device-width, initial-scale=1\"><title>imagend: API</title><link rel=icon "
        "href=\"data:,\"><link rel=stylesheet href=page/page.css><body><main "
        "class=docs><header><h1>imagend: API</h1><p class=muted><a href=\"openapi.json\">OpenAPI "
        "document</a> · <a href=\"./\">web page</a></p></header>");
    while ((r = router_next(c->router, &at))) {
        if (r->flags & ROUTE_HIDDEN)
            continue;
        buf_printf(&b, "<section><h2><code>%s %s</code></h2><p>", r->method, r->path);
        add_html(&b, r->summary);
        buf_puts(&b, "</p>");
        if (r->body || r->query)
            add_fields(&b, r->body ? r->body : r->query);
        buf_puts(&b, "<ul>");
        for (int i = 0; i < 4 && r->answer[i].status; i++)
            buf_printf(&b, "<li><code>%d %s</code> %s", r->answer[i].status,
                       r->answer[i].type ? r->answer[i].type : "", r->answer[i].help);
        buf_puts(&b, "</ul></section>");
    }
    buf_puts(&b, "</main></body></html>");
    set_page_headers(c);
    http_reply(c->http, 200, "text/html; charset=utf-8", &b);
}

#define PAGE(path, handle, flags, type)                                                            \
    {                                                                                              \
        "GET", path, handle, SCOPE_NONE, ROUTE_HIDDEN | (flags), ERRORS_OPENAI, "page",            \
            "The web page", .answer = {                                                            \
                {200, type, "a file of the page"}                                                  \
            }                                                                                      \
    }
const struct route routes_page[] = {
    PAGE("/", page_get, ROUTE_LINKS, "text/html"),
    PAGE("/page/{file}", file_get, 0, "text/javascript"),
    PAGE("/docs", docs_get, ROUTE_LINKS, "text/html"),
    {0},
};
