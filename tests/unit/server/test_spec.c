// A job's spec is unchanged after writing and reading; damaged ones are refused.
#include "job.h"
#include "test.h"

#include <stdio.h>
#include <stdlib.h>

static void test_round_trip(void)
{
    const struct job_spec s = {
        .request = {.prompt = "a \"red\" sphere\n\\ \xe2\x82\xac",
                    .preset = "fast",
                    .sampler = "ddim",
                    .size = {256, 384},
                    .seed = INT64_MAX,
                    .steps = {27, 0, 10},
                    .guidance_scale = {7.5f, 0, 4.25f},
                    .noise_level = {-1, 250, 0},
                    .set_noise_level = true},
        .n = 3,
        .format = JOB_WEBP,
        .quality = 80,
        .previews = 4,
        .priority = 9,
        .deadline = 1893456000123,
        .owner = "alice",
        .api = "jobs",
        .durable = true,
        .keep = true,
    };
    struct job_spec back;
    struct fault why = {0};
    char *text = NULL, *json = job_spec_write(&s);
    CHECK(json);
    CHECK_MSG(!job_spec_read(json, &back, &text, &why), "%s: %s", why.msg, json);
    CHECK_STR(back.request.prompt, s.request.prompt);
    CHECK_STR(back.owner, "alice");
    CHECK_STR(back.request.preset, "fast");
    CHECK(!back.request.negative_prompt && !back.idempotency_key);
    CHECK(back.request.size.width == 256 && back.request.size.height == 384);
    CHECK(back.request.seed == s.request.seed && back.deadline == s.deadline);
    for (int i = 0; i < PICTURE_MAX_STAGES; i++) {
        CHECK_INT(back.request.steps[i], s.request.steps[i]);
        CHECK_INT(back.request.noise_level[i], s.request.noise_level[i]);
        CHECK_NEAR(back.request.guidance_scale[i], s.request.guidance_scale[i], 0);
    }
    CHECK_INT(back.format, JOB_WEBP);
    CHECK(back.durable && back.keep && back.request.set_noise_level);
    free(text);
    free(json);
}

// As programs before version 2 of the store wrote it.
static void test_old(void)
{
    static const char json[] =
        "{\"prompt\":\"a\",\"sampler\":\"ddim\",\"owner\":\"\",\"api\":\"jobs\",\"n\":2,\"size\":0,"
        "\"seed\":9223372036854775807,\"steps0\":5,\"guidance0\":2.5,\"noise0\":-1,\"steps1\":3,"
        "\"guidance1\":1.25,\"noise1\":40,\"steps2\":0,\"guidance2\":0,\"noise2\":-1,"
        "\"set_noise_level\":%s,\"format\":\"webp\",\"quality\":77,\"previews\":3,"
        "\"preview_format\":\"jpeg\",\"priority\":4,\"deadline\":1893456000123,\"durable\":true,"
        "\"keep\":true}";
    for (int set = 0; set < 2; set++) {
        struct job_spec s;
        struct fault why = {0};
        char *text = NULL, written[1000];
        snprintf(written, sizeof written, json, set ? "true" : "false");
        CHECK_MSG(!job_spec_read(written, &s, &text, &why), "%s", why.msg);
        CHECK_STR(s.request.prompt, "a");
        CHECK(s.request.seed == INT64_MAX && s.n == 2 && s.request.size.width == 0);
        CHECK(s.request.steps[0] == 5 && s.request.steps[1] == 3 && s.request.steps[2] == 0);
        CHECK(s.request.guidance_scale[1] == 1.25f && s.request.guidance_scale[2] == 0);
        CHECK_INT(s.request.noise_level[1], set ? 40 : -1);
        CHECK(s.request.set_noise_level && s.deadline == 1893456000123 && s.format == JOB_WEBP);
        free(text);
    }
}

static void test_damaged(void)
{
    static const char *const bad[] = {"",
                                      "[]",
                                      "{\"n\":0}",
                                      "{\"n\":17}",
                                      "{\"format\":\"bmp\"}",
                                      "{\"prompt\":7}",
                                      "{\"prompt\":\"a\"",
                                      "{\"quality\":101}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct job_spec s;
        struct fault why = {0};
        char *text = NULL;
        CHECK_MSG(job_spec_read(bad[i], &s, &text, &why), "%s", bad[i]);
        CHECK(why.msg[0]);
    }
}

int main(void)
{
    test_round_trip();
    test_old();
    test_damaged();
    return test_end();
}
