// The checked view of a network's tensors: returned values, and the errors of weights_finish.
#include "test.h"
#include "weights.h"

#include <stdlib.h>
#include <unistd.h>

static const char *golden;

static struct weights *open_t5(const char *variant, bool dry)
{
    char dir[512];
    struct weights *w;
    struct fault why = {0};

    snprintf(dir, sizeof dir, "%s/t5-tiny/text_encoder", golden);
    CHECK_MSG(
        weights_open(
            &(struct weights_params){.dir = dir, .base = "model", .variant = variant, .dry = dry},
            &w, &why) == ERR_OK,
        "%s", why.msg);
    return w;
}

// Every tensor of the fixture's encoder; `wrong` asks for one shape that is not there.
static int ask_all(struct weights *w, bool wrong)
{
    int got = !!weights_f32(w, WEIGHTS_SHAPE(896, 64), "shared.weight");
    for (int i = 0; i < 3; i++) {
        static const char *const qkv[] = {"q", "k", "v"};
        char p[64];
        snprintf(p, sizeof p, "encoder.block.%d.layer.", i);
        for (int j = 0; j < 3; j++)
            got +=
                !!weights_f32(w, WEIGHTS_SHAPE(48, 64), "%s0.SelfAttention.%s.weight", p, qkv[j]);
        got += !!weights_f32(w, WEIGHTS_SHAPE(64, 48), "%s0.SelfAttention.o.weight", p);
        got += !!weights_f32(w, WEIGHTS_SHAPE(64), "%s0.layer_norm.weight", p);
        got += !!weights_f32(w, WEIGHTS_SHAPE(136, 64), "%s1.DenseReluDense.wi_0.weight", p);
        got += !!weights_f32(w, WEIGHTS_SHAPE(136, 64), "%s1.DenseReluDense.wi_1.weight", p);
        got += !!weights_f32(w, WEIGHTS_SHAPE(64, wrong ? 137 : 136),
                             "%s1.DenseReluDense.wo.weight", p);
        got += !!weights_f32(w, WEIGHTS_SHAPE(64), "%s1.layer_norm.weight", p);
    }
    got += !!weights_f32(w, WEIGHTS_SHAPE(32, 6),
                         "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
    return got + !!weights_f32(w, WEIGHTS_SHAPE(64), "encoder.final_layer_norm.weight");
}

static void check_complete(const char *variant)
{
    struct weights *w = open_t5(variant, false);
    struct weights_stats st;
    struct fault why = {0};

    CHECK_INT(ask_all(w, false), 30);
    CHECK_MSG(weights_finish(w, &why) == ERR_OK, "%s", why.msg);
    weights_stats(w, &st);
    CHECK_INT(st.tensors, 30);
    CHECK_INT(st.parameters, 173184);
    CHECK_INT(st.largest, 896 * 64);
    CHECK_INT(st.missing + st.misshapen + st.surplus, 0);
    CHECK(!weights_complaints(w));
    weights_close(&w);
    CHECK(!w);
}

// The f16 file holds the f32 file's values (they were chosen so), and both ways of reading agree.
static void check_values(void)
{
    struct weights *a = open_t5(NULL, false), *b = open_t5("fp16", false);
    const float *x = weights_f32(a, WEIGHTS_SHAPE(896, 64), "shared.weight");
    const float *y = weights_f32(b, WEIGHTS_SHAPE(896, 64), "shared.weight");
    const float *z = weights_f32(b, WEIGHTS_SHAPE(64), "encoder.final_layer_norm.weight");
    int differ = 0;

    CHECK(x && y && z && y != z);
    for (int i = 0; x && y && i < 896 * 64; i++)
        differ += x[i] != y[i];
    CHECK_INT(differ, 0);
    weights_close(&a);
    weights_close(&b);
}

static void check_complaints(void)
{
    struct weights *w = open_t5(NULL, true);
    struct weights_stats st;
    struct fault why = {0};
    char *text;

    CHECK_INT(ask_all(w, true), 0);
    CHECK(weights_has(w, "shared.%s", "weight") && !weights_has(w, "lm_head.weight"));
    CHECK(!weights_f32(w, WEIGHTS_SHAPE(3), "lm_head.weight"));
    CHECK_INT(weights_finish(w, &why), ERR_FORMAT);
    CHECK_MSG(strstr(why.msg, "model.safetensors: 1 tensors missing: lm_head.weight; 3 of another "
                              "shape: encoder.block.0.layer.1.DenseReluDense.wo.weight is F32 "
                              "[64, 136], must be [64, 137], encoder"),
              "%s", why.msg);
    weights_stats(w, &st);
    CHECK(st.missing == 1 && st.misshapen == 3 && st.surplus == 0 && st.tensors == 30);
    text = weights_complaints(w);
    CHECK(text && strstr(text, "missing lm_head.weight\nmisshapen encoder.block.0"));
    free(text);
    weights_close(&w);

    w = open_t5(NULL, true);
    weights_f32(w, WEIGHTS_SHAPE(896, 64), "shared.weight");
    CHECK_INT(weights_finish(w, &why), ERR_FORMAT);
    CHECK(strstr(why.msg, "29 not part of the network: encoder.block.0.layer.0"));
    weights_ignore(w, "encoder.block.");
    CHECK_INT(weights_finish(w, &why), ERR_FORMAT);
    CHECK(strstr(why.msg, "1 not part of the network: encoder.final_layer_norm.weight"));
    weights_ignore(w, "encoder.");
    CHECK_INT(weights_finish(w, &why), ERR_OK);
    weights_close(&w);
}

// Too large, too small, another number of dimensions, integers: none of them is a weight.
static void check_shapes(void)
{
    static const char head[] =
        "{\"f\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
        "\"i\":{\"dtype\":\"I32\",\"shape\":[2,3],\"data_offsets\":[24,48]}}      ";
    char dir[] = "/tmp/imagend-weights-XXXXXX", path[64];
    const uint64_t length = sizeof head - 1;
    const float data[12] = {1, 2, 3, 4, 5, 6};
    struct weights *w = NULL;
    struct weights_stats st;
    struct fault why = {0};

    CHECK(mkdtemp(dir) != NULL);
    snprintf(path, sizeof path, "%s/m.safetensors", dir);
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(&length, sizeof length, 1, f) == 1 && fwrite(head, length, 1, f) == 1 &&
          fwrite(data, sizeof data, 1, f) == 1 && !fclose(f));
    CHECK_MSG(!weights_open(&(struct weights_params){.dir = dir, .base = "m"}, &w, &why), "%s",
              why.msg);
    CHECK(!weights_f32(w, WEIGHTS_SHAPE(2, 2), "f") && !weights_f32(w, WEIGHTS_SHAPE(1, 3), "f"));
    CHECK(!weights_f32(w, WEIGHTS_SHAPE(2, 4), "f") && !weights_f32(w, WEIGHTS_SHAPE(6), "f"));
    CHECK(!weights_f32(w, WEIGHTS_SHAPE(2, 3, 1), "f") &&
          !weights_f32(w, WEIGHTS_SHAPE(3, 2), "f"));
    CHECK(!weights_f32(w, WEIGHTS_SHAPE(2, 3), "i"));
    const float *v = weights_f32(w, WEIGHTS_SHAPE(2, 3), "f");
    CHECK(v && !memcmp(v, data, 24));
    // Asked for again and again, counted once.
    weights_stats(w, &st);
    CHECK(st.tensors == 2 && st.parameters == 12 && st.misshapen == 7 && st.largest == 6);
    CHECK(st.bytes[ST_F32] == 24 && st.bytes[ST_I32] == 24);
    CHECK_INT(weights_finish(w, &why), ERR_FORMAT);
    CHECK_MSG(strstr(why.msg, "f is F32 [2, 3], must be [2, 2]") != NULL, "%s", why.msg);
    weights_close(&w);
    unlink(path);
    rmdir(dir);
}

// Values in place where they are aligned, in their own type; else, and for f64, as f32.
static void check_any(void)
{
    static const char head[] = "{\"h\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]},"
                               "\"b\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[4,6]},"
                               "\"d\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[6,14]}}";
    const unsigned char data[14] = {0, 0x3c, 0, 0xc0, 0x80, 0x3f, 0, 0, 0, 0, 0, 0, 0x10, 0x40};
    const char *const names[] = {"h", "b", "d"};
    const enum dtype plain[] = {DT_F16, DT_BF16, DT_F32};
    const float first[] = {1, 1, 4};

    for (uint64_t pad = 0; pad < 2; pad++) {
        char dir[] = "/tmp/imagend-weights-XXXXXX", path[64];
        const uint64_t length = sizeof head - 1 + pad;
        struct weights *w = NULL;
        struct fault why = {0};
        CHECK(mkdtemp(dir) != NULL);
        snprintf(path, sizeof path, "%s/m.safetensors", dir);
        FILE *f = fopen(path, "wb");
        CHECK(f && fwrite(&length, sizeof length, 1, f) == 1 &&
              fprintf(f, "%s%s", head, pad ? " " : "") == (int)length &&
              fwrite(data, sizeof data, 1, f) == 1 && !fclose(f));
        CHECK_MSG(!weights_open(&(struct weights_params){.dir = dir, .base = "m"}, &w, &why), "%s",
                  why.msg);
        for (int i = 0; w && i < 3; i++) {
            const struct weights_data d = weights_any(w, WEIGHTS_SHAPE(i ? 1 : 2), "%s", names[i]);
            const bool aligned = length % 2 == 0;
            float value = 0;
            CHECK_INT(d.dtype, aligned ? plain[i] : DT_F32);
            CHECK(d.data != NULL);
            if (d.data)
                floats_from(d.data, d.dtype, 1, &value);
            CHECK_MSG(value == first[i], "%s: %g", names[i], (double)value);
            const float *wide = weights_f32(w, WEIGHTS_SHAPE(i ? 1 : 2), "%s", names[i]);
            CHECK(wide && wide[0] == first[i]);
        }
        CHECK(!weights_any(w, WEIGHTS_SHAPE(3), "h").data);
        weights_close(&w);
        unlink(path);
        rmdir(dir);
    }
}

int main(int argc, char **argv)
{
    struct weights *w;
    struct fault why;

    if (argc < 2)
        return test_skip("needs the golden folder");
    golden = argv[1];
    check_complete(NULL);
    check_complete("fp16");
    check_complete("bf16");
    check_values();
    check_complaints();
    check_shapes();
    check_any();
    CHECK_INT(weights_open(&(struct weights_params){.dir = golden, .base = "model"}, &w, &why),
              ERR_NOT_FOUND);
    CHECK(!w);
    return test_end();
}
