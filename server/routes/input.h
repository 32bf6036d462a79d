// Input images of requests, for every API: reading them, and submitting jobs with them. Loop
// thread; knows no API's own format.
#ifndef IMAGEND_INPUT_H
#define IMAGEND_INPUT_H

#include "asking.h"

struct json_t;

// An image sent by a client: its bytes, or a reference to an image of one of its jobs.
struct input_file {
    struct blob *blob;     // NULL: none, or read from the job
    char job[JOB_ID_SIZE]; // "": not from a job
    int index;
    const char *name; // of the field, in errors about that job
};

struct input {
    struct input_file image, mask;
};

static inline bool input_given(const struct input_file *f)
{
    return f->blob || *f->job;
}

// Reads an image in a JSON document: base64, a data URL, {"job", "index"}, or OpenAI's
// {"image_url"}. name: the image's name in errors; a constant. Errors: INVALID, NO_MEMORY.
enum err input_read(const char *name, const struct json_t *v, struct input_file *out,
                    struct fault *why);
// Takes the image of a request's field (CHECK_FILE in its table): a part of the form, or a member
// of the JSON document, which is removed to free its memory. *out is empty if the field is absent.
// Errors: INVALID (also for more than one image), NO_MEMORY.
enum err input_take(struct call *c, const char *name, struct input_file *out, struct fault *why);
void input_deinit(struct input *in);
// Submits the job with these images, or with none. Calls then once the job is accepted, possibly
// later; otherwise sends an error response. If the client disconnects before that, no job is
// created. The request's body is gone if it had an input image; c->fields is still valid. Owner:
// takes the images of in, also on error.
void input_submit(struct call *c, const struct job_spec *spec, struct input *in, asking_fn *then);

#endif
