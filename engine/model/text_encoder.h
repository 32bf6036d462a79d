// A text encoder maps token ids to a sequence of text vectors. There is one class for each
// text_encoder in model_index.json: a new one is a file and a row in classes.c. Thread: the
// engine's worker; a config is plain data.
#ifndef IMAGEND_TEXT_ENCODER_H
#define IMAGEND_TEXT_ENCODER_H

#include "hfconfig.h"
#include "layers.h"
#include "tokenizer.h"

struct text_encoder_class;

struct text_encoder_config {
    const struct text_encoder_class *cls;
    int width;  // of a text vector
    int vocab;  // token embeddings
    int length; // maximum number of tokens; 0: any
    union {
        struct t5_config t5;
        struct clip_config clip;
    };
};

// The first member of every encoder.
struct text_encoder {
    const struct text_encoder_class *cls;
    int width;
    uint64_t parameters;
    struct text_encoder_config config;
    struct load_stream *stream; // NULL: none
};

// cls: the name in model_index.json. Errors: UNSUPPORTED, as hfconfig.h.
enum err text_encoder_read(const char *cls, const char *path, struct text_encoder_config *out,
                           struct fault *why);
// Reads a T5 encoder's configuration from its GGUF file. Errors: as gguf.h; UNSUPPORTED.
enum err text_encoder_read_gguf(const char *path, struct text_encoder_config *out,
                                struct fault *why);
// The network's dimensions in words, for inspect.
void text_encoder_describe(const struct text_encoder_config *c, char *out, size_t n);

// Errors: FORMAT (missing, surplus or misshapen tensors, named in *why), UNSUPPORTED,
// NO_DEVICE_MEMORY. dev NULL: only counts the tensors. Owner: the caller destroys *out.
enum err text_encoder_load(struct ops_device *dev, const struct text_encoder_config *c,
                           struct weights *w, enum dtype dtype, struct text_encoder **out,
                           struct fault *why);
void text_encoder_destroy(struct text_encoder **t);
// Records the encoder. ids u32 [N, L]; valid u32 [N, L], 0 = padding; both are mapped tensors with
// one element per token (c = 1). Returns [N, L, width] f32, after the encoder's last norm.
struct tensor text_encoder_record(const struct text_encoder *t, struct ops *o,
                                  const struct tensor *ids, const struct tensor *valid,
                                  const struct tap *tap);

// ---- for the classes --------------------------------------------------------------------------

struct text_encoder_class {
    const char *name;
    enum tokenizer_kind tokenizer; // whose ids it takes
    enum err (*read)(const char *path, struct text_encoder_config *out, struct fault *why);
    void (*describe)(const struct text_encoder_config *c, char *out, size_t n);
    // The size of the encoder, which is allocated and zeroed before load. load may be called again,
    // as load_params.load.
    size_t bytes;
    enum err (*load)(struct text_encoder *t, const struct text_encoder_config *c, struct loader *l,
                     struct fault *why);
    void (*deinit)(struct text_encoder *t);
    struct tensor (*record)(const struct text_encoder *t, struct ops *o, const struct tensor *ids,
                            const struct tensor *valid, const struct tap *tap);
};
extern const struct text_encoder_class t5_encoder, clip_encoder;

#endif
