// Input images of requests, for every API: where a client's image comes from, and the submission of
// a job that has one. Loop thread; knows no API's own format.
#ifndef IMAGEND_INPUT_H
#define IMAGEND_INPUT_H

#include "app.h"

struct json_t;

// An image as a client gives it: its bytes, or an image of one of its jobs.
struct input_file {
    struct blob *blob;     // NULL: none, or to be taken from the job
    char job[JOB_ID_SIZE]; // "": from the client
    int index;
};

struct input {
    struct input_file image, mask;
};

static inline bool input_given(const struct input_file *f)
{
    return f->blob || *f->job;
}

// An image in a JSON document: base64, a data URL, {"job", "index"}, or OpenAI's {"image_url"}.
// name: how errors call it. Errors: INVALID, NO_MEMORY.
enum err input_read(const char *name, const struct json_t *v, struct input_file *out,
                    struct fault *why);
// The image of a field of the request, a CHECK_FILE of its table: a part of its form, or a member
// of its JSON, which is removed from the document to free its memory. Nothing is given when the
// field is not. Errors: INVALID (also for more than one image), NO_MEMORY.
enum err input_take(struct call *c, const char *name, struct input_file *out, struct fault *why);
void input_deinit(struct input *in);
// Whether a request of this owner with this key is being looked at, and has no job yet.
bool input_waits(const struct app *app, const char *owner, const char *idempotency_key);

// A job was accepted. The body of the request is gone if it had an input image; c->fields is not.
typedef void input_then_fn(struct call *c, struct job *job);
// Submits the job with these images, or with none as draw_submit does. then is called once it is
// accepted, maybe later; otherwise the call is answered. If the client leaves before that, no job
// is made. Owner: takes the images of in, in any case.
void input_submit(struct call *c, const struct job_spec *spec, struct input *in,
                  input_then_fn *then);

#endif
