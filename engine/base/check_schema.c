// Generates the JSON schema (OpenAPI 3.1) of a field table. Called for requests for the OpenAPI
// document.
#include "check_scales.h"

#include "buf.h"
#include "text.h"

static void add_list(struct buf *b, const char *const *list, bool null)
{
    buf_puts(b, ",\"enum\":[");
    for (int i = 0; list[i]; i++) {
        buf_puts(b, i ? "," : "");
        text_json(b, list[i]);
    }
    buf_puts(b, null ? ",null]" : "]");
}

static void add_type(struct buf *b, const char *type, bool null)
{
    if (null)
        buf_printf(b, "\"type\":[\"%s\",\"null\"]", type);
    else
        buf_printf(b, "\"type\":\"%s\"", type);
}

static void add_range(struct buf *b, const struct check_field *f)
{
    buf_printf(b, ",\"minimum\":%.15g,\"maximum\":%.15g", f->zero > 0 ? 0 : f->min, f->max);
}

static void add_numbers(struct buf *b, const struct check_field *f, const char *type, bool null)
{
    buf_printf(b, "\"oneOf\":[{\"type\":\"%s\"", type);
    add_range(b, f);
    buf_printf(b,
               "},{\"type\":\"array\",\"minItems\":1,\"maxItems\":%d,\"items\":{\"type\":"
               "[\"%s\",\"null\"]",
               CHECK_LIST, type);
    add_range(b, f);
    buf_puts(b, null ? "}},{\"type\":\"null\"}]" : "}}]");
}

static void add_file(struct buf *b, const struct check_field *f, bool null)
{
    static const char one[] = "{\"type\":[\"string\",\"object\"]}";
    if (f->max > 1)
        buf_printf(
            b,
            "\"oneOf\":[%s,{\"type\":\"array\",\"minItems\":1,\"maxItems\":%.0f,\"items\":%s}%s]",
            one, f->max, one, null ? ",{\"type\":\"null\"}" : "");
    else
        buf_printf(b, "\"type\":[\"string\",\"object\"%s]", null ? ",\"null\"" : "");
}

static void add_default(struct buf *b, const struct check_field *f)
{
    if (!f->def || (f->type == CHECK_INT && f->def[0] == '0' && f->min > 0))
        return;
    buf_puts(b, ",\"default\":");
    if (f->type == CHECK_TEXT || f->type == CHECK_ENUM || f->type == CHECK_SIZE)
        text_json(b, f->def);
    else
        buf_puts(b, f->def);
}

// The schema of a value without its last brace.
static void add_value(const struct check_field *f, check_live_fn *live, void *ctx, struct buf *b)
{
    const bool null = f->flags & (CHECK_NULL | CHECK_IGNORED);
    const char *const *list = f->live && live ? live(ctx, f->live) : NULL;
    buf_puts(b, "{");
    switch (f->type) {
    case CHECK_TEXT:
    case CHECK_CHARS:
        add_type(b, "string", null);
        buf_printf(b, ",\"minLength\":%.0f,\"maxLength\":%.0f", f->min > 0 ? 1.0 : 0.0, f->max);
        break;
    case CHECK_ENUM: add_type(b, "string", null); break;
    case CHECK_INT:
        add_type(b, "integer", null);
        add_range(b, f);
        break;
    case CHECK_NUMBER:
        add_type(b, "number", null);
        add_range(b, f);
        break;
    case CHECK_SIZE:
        buf_puts(b, "\"oneOf\":[{\"type\":\"integer\"");
        add_range(b, f);
        buf_puts(b, "},{\"type\":\"string\",\"pattern\":\"^(auto|[0-9]+(x[0-9]+)?)$\"}");
        buf_puts(b, null ? ",{\"type\":\"null\"}]" : "]");
        break;
    case CHECK_BOOL: add_type(b, "boolean", null); break;
    case CHECK_SEED:
        add_type(b, "integer", null);
        buf_puts(b, ",\"minimum\":-1,\"maximum\":9223372036854775807");
        break;
    case CHECK_INTS: add_numbers(b, f, "integer", null); break;
    case CHECK_NUMBERS: add_numbers(b, f, "number", null); break;
    case CHECK_SCALES: check_scales_schema(f, null, b); break;
    case CHECK_TIME: buf_puts(b, "\"type\":[\"string\",\"integer\",\"null\"]"); break;
    case CHECK_FILE: add_file(b, f, null); break;
    case CHECK_ANY: break;
    }
    if (f->choices)
        add_list(b, f->choices, null);
    add_default(b, f);
    if (list) {
        buf_puts(b, ",\"examples\":[");
        for (int i = 0; list[i]; i++) {
            buf_puts(b, i ? "," : "");
            text_json(b, list[i]);
        }
        buf_puts(b, "]");
    }
}

void check_schema_value(const struct check_field *f, struct buf *out)
{
    add_value(f, NULL, NULL, out);
    buf_puts(out, "}");
}

static void add_field(const struct check_field *f, check_live_fn *live, void *ctx, struct buf *b)
{
    add_value(f, live, ctx, b);
    buf_puts(b, b->data[b->len - 1] == '{' ? "\"description\":" : ",\"description\":");
    text_json(b, f->help);
    buf_puts(b, "}");
}

void check_schema(const struct check_table *t, check_live_fn *live, void *ctx, struct buf *out)
{
    const struct check_field *f;
    const char *comma = "";
    buf_puts(out, "{\"type\":\"object\",\"properties\":{");
    for (int row = 0; (f = check_next(t, &row, NULL));) {
        if (f->flags & CHECK_HIDDEN)
            continue;
        buf_puts(out, comma);
        text_json(out, f->name);
        buf_puts(out, ":");
        add_field(f, live, ctx, out);
        comma = ",";
    }
    buf_puts(out, "},\"required\":[");
    comma = "";
    for (int row = 0; (f = check_next(t, &row, NULL));) {
        if (!(f->flags & CHECK_REQUIRED))
            continue;
        buf_puts(out, comma);
        text_json(out, f->name);
        comma = ",";
    }
    buf_printf(out, "],\"additionalProperties\":%s}", t->strict ? "false" : "true");
}
