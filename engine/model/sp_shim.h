// A C interface to SentencePiece. Caller: tokenizer.c. Thread: a loaded model is read-only.
#ifndef IMAGEND_SP_SHIM_H
#define IMAGEND_SP_SHIM_H

#include <stdbool.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

struct sp_model;

// Results of sp_load and sp_encode.
enum sp_result { SP_OK, SP_MALFORMED, SP_NO_MEMORY };

// Loads a serialized model. add_dummy_prefix: true keeps the model's setting, false turns it off.
// says: a message if the model is malformed. Owner: the caller frees *out with sp_free.
enum sp_result sp_load(const void *bytes, size_t n, bool add_dummy_prefix, struct sp_model **out,
                       char *says, size_t says_size);
void sp_free(struct sp_model **m);

int sp_pieces(const struct sp_model *m);
// -1 if the vocabulary has no such piece.
int sp_piece_id(const struct sp_model *m, const char *piece, size_t n);
int sp_unknown_id(const struct sp_model *m);

// Called with each piece: its normalized text and that text's id in the vocabulary.
typedef void sp_piece_fn(void *ctx, const char *piece, size_t n, int id);
enum sp_result sp_encode(const struct sp_model *m, const char *text, size_t n, sp_piece_fn *fn,
                         void *ctx);

#ifdef __cplusplus
}
#endif

#endif
