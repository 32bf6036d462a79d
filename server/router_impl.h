// What the router's files share. Nobody else includes it.
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
// The parts of a form, its fields as a JSON object, and from that the route's own.
enum err router_take_form(struct call *c, struct fault *why);
void router_form_free(struct call *c);

// router_answer.c
void call_set_retry(struct call *c, double seconds);

// router_find.c
// Sets c->route and c->arg, and rewrites the request's path into the one that was found. allowed
// collects the methods of a path that matched otherwise.
bool router_find(struct call *c, char allowed[ROUTER_METHODS]);
// Answers 404, with the nearest route, or 405.
void router_refuse_path(struct call *c, const char *allowed);
// A page's relative links are right at one spelling of its path only. True: redirected to it.
bool router_redirect(struct call *c);

// router_web.c
void router_read_forwarded(struct call *c);
void router_set_headers(struct call *c);
// False: the call is answered.
bool router_check_browser(struct call *c);
void router_preflight(struct call *c, const char *allowed);

#endif
