// Shared by router*.c. Private to these files.
#ifndef IMAGEND_ROUTER_IMPL_H
#define IMAGEND_ROUTER_IMPL_H

#include "router.h"

struct router {
    struct router_params p;
    bool draining;
    double retry;
};

enum { ROUTER_METHODS = 128 };

// router_form.c
// Parses a form: its parts, its fields as a JSON object, and from that the route's fields.
enum err router_take_form(struct call *c, struct fault *why);
void router_form_free(struct call *c);

// router_answer.c
void call_set_retry(struct call *c, double seconds);

// router_find.c
// Sets c->route and c->arg, and rewrites the request's path to the matching one. allowed collects
// the methods of paths that match with another method.
bool router_find(struct call *c, char allowed[ROUTER_METHODS]);
// Responds with 404 and the nearest route, or with 405.
void router_refuse_path(struct call *c, const char *allowed);
// A page's relative links work only for one spelling of its path. True: redirected to it.
bool router_redirect(struct call *c);

// router_web.c
void router_read_forwarded(struct call *c);
void router_set_headers(struct call *c);
// False: a response was sent.
bool router_check_browser(struct call *c);
void router_preflight(struct call *c, const char *allowed);

#endif
