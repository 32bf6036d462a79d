// Bodies of type multipart/form-data: the text fields become the equivalent JSON object, with every
// value as text; files stay in the body. Loop thread.
#include "router_impl.h"

#include "buf.h"
#include "http.h"
#include "json.h"
#include "multipart.h"

#include <stdlib.h>
#include <string.h>

void router_form_free(struct call *c)
{
    if (c->form)
        multipart_deinit(c->form);
    free(c->form);
    c->form = NULL;
}

static enum err put_part(struct call *c, const struct multipart_part *part, struct fault *why)
{
    char name[MULTIPART_MAX_NAME + 1];
    size_t n = strlen(part->name);
    // PHP's notation for the items of a list.
    if (n > 2 && !strcmp(part->name + n - 2, "[]"))
        n -= 2;
    memcpy(name, part->name, n);
    name[n] = 0;
    const struct check_table *t = c->route->body;
    const struct check_field *f = check_find(t, name, NULL);
    const bool file = f && f->type == CHECK_FILE, seen = json_find(c->body, name);
    if ((!f && !t->strict) || (file && seen))
        return ERR_OK;
    if (seen)
        return fault_set(why, ERR_INVALID, name, "\"%.60s\" is given more than once", name);
    if (!json_put_text(c->body, name, file ? "" : (const char *)part->data, file ? 0 : part->size))
        return fault_set(why, ERR_INVALID, name, "\"%.60s\" must be UTF-8 text", name);
    return ERR_OK;
}

enum err router_take_form(struct call *c, struct fault *why)
{
    const struct buf *body = http_body(c->http);
    struct check_table lax = *c->route->body;
    c->form = calloc(1, sizeof *c->form);
    c->body = json_map_create();
    if (!c->form || !c->body)
        return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    enum err err =
        multipart_parse(http_header(c->http, "Content-Type"), body->data, body->len, c->form, why);
    for (int i = 0; !err && i < c->form->parts; i++)
        err = put_part(c, &c->form->part[i], why);
    lax.lax = true;
    return err ? err : check_object(&lax, c->body, c->fields, why);
}
