// The weights of one network, requested by name and expected shape and returned as f32, or as they
// are in the file, one tensor at a time, so that only one tensor is unpacked at once. Errors are
// collected, not returned one by one: weights_finish names every tensor that is missing, misshapen
// or unused.
//
//   weights_open(&(struct weights_params){.dir = "unet", .base = "diffusion_pytorch_model"}, &w,
//                why);
//   const float *k = weights_f32(w, WEIGHTS_SHAPE(cout, cin, 3, 3), "%sconv1.weight", prefix);
//   const float *b = weights_f32(w, WEIGHTS_SHAPE(cout), "%sconv1.bias", prefix);
//   if (k && b) ...upload...
//   e = weights_finish(w, why);
//
// Thread: one at a time.
#ifndef IMAGEND_WEIGHTS_H
#define IMAGEND_WEIGHTS_H

#include "lora.h"
#include "safetensors.h"
#include "tensor.h" // enum dtype

enum { WEIGHTS_MAX_LORAS = 8 };

struct weights;

struct weights_params {
    const char *dir, *base, *variant; // as safetensors_params
    const char *gguf;                 // a T5 encoder's GGUF file instead of the folder; NULL: none
    bool stored; // of a GGUF file: loaders keep its formats, see weights_stored
    bool dry;    // count only: nothing is converted and weights_f32 returns NULL
    size_t room; // bytes of device memory for matrix products, which are streamed if it is not
                 // enough; 0: any
    const struct lora_params *lora; // are added to the weights in this order
    int loras;                      // at most WEIGHTS_MAX_LORAS
};

struct weights_shape {
    uint64_t d[5]; // ends at the first 0
};
#define WEIGHTS_SHAPE(...) (&(const struct weights_shape){{__VA_ARGS__}})

// Errors: as safetensors_open or gguf_open; as lora_open and lora_check, for a LoRA of which any
// part does not fit. Owner: the caller closes *out with weights_close.
enum err weights_open(const struct weights_params *p, struct weights **out, struct fault *why);
// Another owner of the same files, who closes them, too.
struct weights *weights_share(struct weights *w);
void weights_close(struct weights **w);

// Returns the tensor in f32, row-major. Owner: w; the two latest results stay valid (weight and
// bias), older ones are overwritten. NULL if it is missing, misshapen, not a float type, out of
// memory or in a dry run; weights_finish reports the reason, so callers simply skip the upload.
const float *weights_f32(struct weights *w, const struct weights_shape *shape, const char *name_fmt,
                         ...) __attribute__((format(printf, 3, 4)));
// The same without a conversion: f32, f16 or bf16 in place, other float types as f32. Owner: w,
// as with weights_f32. data NULL: as weights_f32.
struct weights_data {
    const void *data; // row-major
    enum dtype dtype;
};
struct weights_data weights_any(struct weights *w, const struct weights_shape *shape,
                                const char *name_fmt, ...) __attribute__((format(printf, 3, 4)));
bool weights_dry(const struct weights *w); // as params.dry
void weights_set_dry(struct weights *w, bool dry);
size_t weights_room(const struct weights *w); // as params.room
// Whether layers keep the formats of the file instead of the device's.
bool weights_stored(const struct weights *w);
// The type in the file of the tensor that was looked up last; ST_DTYPES: it was missing.
enum safetensors_dtype weights_dtype(const struct weights *w);
bool weights_has(const struct weights *w, const char *name_fmt, ...)
    __attribute__((format(printf, 2, 3)));
// Ignores tensors whose names start with this prefix (T5's "decoder.").
void weights_ignore(struct weights *w, const char *prefix);

// The paths of the files: NULL past the last one.
const char *weights_path(const struct weights *w, int file);
// Errors: FORMAT with counts and the first names of each kind; NO_MEMORY.
enum err weights_finish(struct weights *w, struct fault *why);

struct weights_stats {
    uint64_t tensors, parameters; // used by the network
    uint64_t bytes[ST_DTYPES];    // on disk, by dtype
    uint64_t largest;             // elements of the largest tensor
    int missing, misshapen, surplus;
};
void weights_stats(const struct weights *w, struct weights_stats *out);
// One line per missing, misshapen and unused tensor, for `imagend inspect`. Owner: the caller frees
// it; NULL if there are none.
char *weights_complaints(const struct weights *w);

#endif
