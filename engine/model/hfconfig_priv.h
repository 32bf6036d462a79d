// Shared by the config parsers: the tables of known keys.
#ifndef IMAGEND_HFCONFIG_PRIV_H
#define IMAGEND_HFCONFIG_PRIV_H

#include "hfconfig.h"
#include "json.h"

enum { HFCONFIG_MAX_BYTES = 4 << 20 };

struct hfconfig_key {
    const char *name;
    const char *only; // the only supported value, as compact JSON; NULL: any
};
#define HFCONFIG_READ(key) {key, NULL}     // parsed and checked by the parser
#define HFCONFIG_HARMLESS(key) {key, NULL} // does not affect the arithmetic

// Keys that every config of transformers may have: training, decoding and bookkeeping.
#define HFCONFIG_TRANSFORMERS_KEYS                                                                 \
    {"quantization_config", "null"}, {"pruned_heads", "{}"}, {"is_decoder", "false"},              \
        {"add_cross_attention", "false"}, {"chunk_size_feed_forward", "0"},                        \
        HFCONFIG_HARMLESS("architectures"), HFCONFIG_HARMLESS("dtype"),                            \
        HFCONFIG_HARMLESS("torch_dtype"), HFCONFIG_HARMLESS("transformers_version"),               \
        HFCONFIG_HARMLESS("is_encoder_decoder"), HFCONFIG_HARMLESS("tie_word_embeddings"),         \
        HFCONFIG_HARMLESS("tie_encoder_decoder"), HFCONFIG_HARMLESS("use_cache"),                  \
        HFCONFIG_HARMLESS("task_specific_params"), HFCONFIG_HARMLESS("bos_token_id"),              \
        HFCONFIG_HARMLESS("sep_token_id"), HFCONFIG_HARMLESS("max_length"),                        \
        HFCONFIG_HARMLESS("min_length"), HFCONFIG_HARMLESS("do_sample"),                           \
        HFCONFIG_HARMLESS("early_stopping"), HFCONFIG_HARMLESS("num_beams"),                       \
        HFCONFIG_HARMLESS("num_beam_groups"), HFCONFIG_HARMLESS("diversity_penalty"),              \
        HFCONFIG_HARMLESS("temperature"), HFCONFIG_HARMLESS("top_k"), HFCONFIG_HARMLESS("top_p"),  \
        HFCONFIG_HARMLESS("typical_p"), HFCONFIG_HARMLESS("repetition_penalty"),                   \
        HFCONFIG_HARMLESS("length_penalty"), HFCONFIG_HARMLESS("no_repeat_ngram_size"),            \
        HFCONFIG_HARMLESS("encoder_no_repeat_ngram_size"), HFCONFIG_HARMLESS("bad_words_ids"),     \
        HFCONFIG_HARMLESS("num_return_sequences"), HFCONFIG_HARMLESS("output_scores"),             \
        HFCONFIG_HARMLESS("return_dict_in_generate"), HFCONFIG_HARMLESS("forced_bos_token_id"),    \
        HFCONFIG_HARMLESS("forced_eos_token_id"), HFCONFIG_HARMLESS("remove_invalid_values"),      \
        HFCONFIG_HARMLESS("exponential_decay_length_penalty"),                                     \
        HFCONFIG_HARMLESS("suppress_tokens"), HFCONFIG_HARMLESS("begin_suppress_tokens"),          \
        HFCONFIG_HARMLESS("return_dict"), HFCONFIG_HARMLESS("output_hidden_states"),               \
        HFCONFIG_HARMLESS("output_attentions"), HFCONFIG_HARMLESS("torchscript"),                  \
        HFCONFIG_HARMLESS("use_bfloat16"), HFCONFIG_HARMLESS("tf_legacy_loss"),                    \
        HFCONFIG_HARMLESS("finetuning_task"), HFCONFIG_HARMLESS("id2label"),                       \
        HFCONFIG_HARMLESS("label2id"), HFCONFIG_HARMLESS("tokenizer_class"),                       \
        HFCONFIG_HARMLESS("prefix"), HFCONFIG_HARMLESS("problem_type"),                            \
        HFCONFIG_HARMLESS("cross_attention_hidden_size"), HFCONFIG_HARMLESS("num_labels"),         \
        HFCONFIG_HARMLESS("max_new_tokens"), HFCONFIG_HARMLESS("min_new_tokens"),                  \
        HFCONFIG_HARMLESS("max_time"), HFCONFIG_HARMLESS("penalty_alpha"),                         \
        HFCONFIG_HARMLESS("epsilon_cutoff"), HFCONFIG_HARMLESS("eta_cutoff"),                      \
        HFCONFIG_HARMLESS("renormalize_logits"), HFCONFIG_HARMLESS("force_words_ids"),             \
        HFCONFIG_HARMLESS("forced_decoder_ids"), HFCONFIG_HARMLESS("constraints"),                 \
        HFCONFIG_HARMLESS("output_logits"), HFCONFIG_HARMLESS("mask_token_id"),                    \
        HFCONFIG_HARMLESS("unk_token_id"), HFCONFIG_HARMLESS("cls_token_id"),                      \
        HFCONFIG_HARMLESS("xla_device"), HFCONFIG_HARMLESS("attn_implementation"),                 \
        HFCONFIG_HARMLESS("gradient_checkpointing")

// Checks that every key is in the table (which ends with a NULL name) and has its only value, if
// one is set. Keys that begin with '_' and unknown keys that are null are ignored. Errors:
// UNSUPPORTED, kept in r.
void hfconfig_check_keys(struct json_reader *r, const struct hfconfig_key *table);

// Records ERR_UNSUPPORTED for the key's value in r.
void hfconfig_unsupported(struct json_reader *r, const char *key);

// Parses the file or text and passes the object to read.
typedef void hfconfig_fn(struct json_reader *r, void *out);
enum err hfconfig_from_file(const char *path, hfconfig_fn *read, void *out, struct fault *why);
enum err hfconfig_from_text(const char *text, size_t len, const char *what, hfconfig_fn *read,
                            void *out, struct fault *why);

#endif
