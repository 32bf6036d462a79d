// Encodes prompts to text states: tokenizer, text encoder and a cache of recent prompts. Called by
// the engine and the golden program. Thread: the engine's worker.
#ifndef IMAGEND_TEXT_H
#define IMAGEND_TEXT_H

#include "text_encoder.h"
#include "tokenizer.h"

struct text;

struct text_params {
    struct ops_device *dev;
    const char *tokenizer_dir;
    const struct weights_params *weights; // of the encoder; dry: made without values
    const struct text_encoder_config *config;
    enum dtype dtype;     // of the weights; activations are f32
    int cached;           // prompts in the cache; at least 2
    bool lazy;            // only check the encoder's files; it is loaded for the first prompt
    const char *disk_dir; // folder of encoded prompts; NULL: none
    size_t disk_limit;    // bytes of all files in it
};
enum err text_open(const struct text_params *p, struct text **out, struct fault *why);

// The files of a text_open, opened and checked. Without a device (p->dev NULL) the weights are
// checked from their headers but not loaded.
struct text_parts {
    struct tokenizer *tokenizer;
    struct weights *weights;
    struct text_encoder *encoder;
    struct fault tokenizer_fault, weights_fault; // code 0: fine
};
// Owner: the caller calls text_parts_deinit, also on error. Errors: the first fault.
enum err text_parts_open(const struct text_params *p, struct text_parts *parts, struct fault *why);
void text_parts_deinit(struct text_parts *parts);

void text_close(struct text **t);
// Frees the encoder's memory on the device; it is loaded again for the next prompt that is not in
// the cache. room, if set, is called before that. bytes: then as weights_params.room.
void text_release(struct text *t, size_t bytes);
bool text_is_loaded(const struct text *t);
void text_set_room(struct text *t, void (*room)(void *ctx), void *ctx);
// Records the encoder, so that its activations are there. Errors: as text_encode.
enum err text_warm(struct text *t);

int text_length(const struct text *t); // tokens L
int text_dim(const struct text *t);    // width D
uint64_t text_parameters(const struct text *t);

struct text_states {
    const float *v; // [L, D]
    int tokens;     // of L, without padding
    int cut;        // tokens of the prompt that did not fit
};
// Encodes the prompt, for T5 lowercased and stripped first as in the IF pipelines. Owner: the
// cache; valid until two further prompts have been encoded. Errors: INVALID (not UTF-8),
// NOT_FINITE, DEVICE_LOST, NO_DEVICE_MEMORY, NO_MEMORY.
enum err text_encode(struct text *t, const char *prompt, struct text_states *out,
                     struct fault *why);
void text_cache_counts(const struct text *t, uint64_t *hits, uint64_t *misses);

#endif
