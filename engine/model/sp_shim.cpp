// A C interface to SentencePiece, see sp_shim.h: the only C++ of the program. No exception and no
// C++ type crosses the interface. Any thread.
#include "sp_shim.h"

#include <cstdio>
#include <new>
#include <sentencepiece_processor.h>
#include <string>
#include <vector>

struct sp_model {
    sentencepiece::SentencePieceProcessor processor;
};

extern "C" enum sp_result sp_load(const void *bytes, size_t n, bool add_dummy_prefix,
                                  struct sp_model **out, char *says, size_t says_size)
{
    // Serialized messages merge by concatenation: ModelProto.normalizer_spec (field 3) with
    // NormalizerSpec.add_dummy_prefix (field 3) = false.
    static const char no_prefix[] = {0x1a, 0x02, 0x18, 0x00};
    sp_model *m = nullptr;

    *out = nullptr;
    try {
        std::string model(static_cast<const char *>(bytes), n);
        if (!add_dummy_prefix)
            model.append(no_prefix, sizeof no_prefix);
        m = new sp_model;
        const auto status = m->processor.LoadFromSerializedProto(model);
        if (!status.ok() || m->processor.GetPieceSize() <= 0) {
            std::snprintf(says, says_size, "%s", status.ok() ? "no pieces" : status.message());
            delete m;
            return SP_MALFORMED;
        }
    } catch (const std::bad_alloc &) {
        delete m;
        return SP_NO_MEMORY;
    } catch (const std::exception &e) {
        std::snprintf(says, says_size, "%s", e.what());
        delete m;
        return SP_MALFORMED;
    }
    *out = m;
    return SP_OK;
}

extern "C" void sp_free(struct sp_model **m)
{
    delete *m;
    *m = nullptr;
}

extern "C" int sp_pieces(const struct sp_model *m)
{
    return m->processor.GetPieceSize();
}

extern "C" int sp_unknown_id(const struct sp_model *m)
{
    return m->processor.unk_id();
}

extern "C" int sp_piece_id(const struct sp_model *m, const char *piece, size_t n)
{
    const absl::string_view text(piece, n);
    const int id = m->processor.PieceToId(text);
    // the unknown id is also returned for text that is not in the vocabulary
    if (id < 0 || id >= m->processor.GetPieceSize() || m->processor.IdToPiece(id) != text)
        return -1;
    return id;
}

extern "C" enum sp_result sp_encode(const struct sp_model *m, const char *text, size_t n,
                                    sp_piece_fn *fn, void *ctx)
{
    try {
        std::vector<std::string> pieces;
        if (!m->processor.Encode(absl::string_view(text, n), &pieces).ok())
            return SP_MALFORMED;
        for (const std::string &p : pieces)
            fn(ctx, p.data(), p.size(), m->processor.PieceToId(p));
    } catch (const std::bad_alloc &) {
        return SP_NO_MEMORY;
    } catch (const std::exception &) {
        return SP_MALFORMED;
    }
    return SP_OK;
}
