// Leases of two replicas that share a PostgreSQL: who may draw a job, what becomes of one whose
// replica is gone, and what the other one learns of it. See replicas.h.
#include "clock.h"
#include "replicas.h"
#include "test.h"

#include <stdlib.h>

// A replica that was gone for longer than its lease cannot write what another one draws now.
static void test_fencing(void)
{
    struct job *j = make("", 2), *jobs[16];
    CHECK(!admit(a, j, 4));
    CHECK(!draw(a, j, 0, "first"));
    check_claim(b, 4, 0, made - 1, "");
    let_leases_end();
    CHECK_INT(claim(b, 4, 0, jobs), 1);
    struct job *now = jobs[0];
    CHECK(now->lease > j->lease && now->claims == 2);
    CHECK_INT(now->picture[0].state, JOB_DONE); // it is not drawn again
    CHECK_INT(now->picture[1].state, JOB_QUEUED);
    CHECK(beat(a, j, true).lost);
    CHECK_INT(draw(a, j, 1, "stale"), ERR_STALE);
    CHECK_INT(end(a, j, JOB_FAILED), ERR_STALE);
    CHECK_INT(change(a, STORE_NOTE, j), ERR_STALE);
    check_state(j, JOB_RUNNING);
    CHECK(!beat(b, now, false).lost);
    now->state = JOB_DONE;
    now->finished = 5;
    now->expires = INT64_MAX;
    CHECK(!draw(b, now, 1, "second"));
    check_state(j, JOB_DONE);
    CHECK(!draw(b, now, 1, "second")); // the call of a lost answer, again
    CHECK_INT(draw(a, j, 1, "stale"), ERR_STALE);
    CHECK_STR(sql("SELECT string_agg(convert_from(bytes, 'UTF8'), ',' ORDER BY picture)"
                  " FROM imagend.image"),
              "first,second");
    CHECK_STR(sql("SELECT queued + running FROM imagend.load"), "0");
    job_free(&j);
    job_free(&now);
    empty();
    sql("DELETE FROM imagend.image");
}

// A lease that ended, but that nobody else took, goes on.
static void test_late_beat(void)
{
    struct job *j = make("", 1);
    CHECK(!admit(a, j, 4));
    let_leases_end();
    CHECK(!beat(a, j, false).lost);
    check_claim(b, 4, 0, made - 1, "");
    check_state(j, JOB_RUNNING);
    job_free(&j);
    empty();
}

// Leases that ended while the database was away are not taken before their replicas are back.
static void test_database_was_away(void)
{
    struct job *j = make("", 1);
    CHECK(!admit(a, j, 4));
    let_leases_end();
    sql("CREATE OR REPLACE FUNCTION imagend.up_ms() RETURNS bigint LANGUAGE sql AS"
        " 'SELECT 14000::bigint'");
    check_claim(b, 4, 0, made - 1, "");
    let_leases_end();
    check_claim(b, 4, 0, made - 1, "1");
    job_free(&j);
    empty();
}

static void test_release(void)
{
    struct job *j = make("", 2), *again;
    CHECK(!admit(a, j, 4));
    CHECK(!draw(a, j, 0, "first"));
    store_call_free(run(a, leases(STORE_RELEASE, j)));
    again = find(b, j->id);
    CHECK(again && again->state == JOB_QUEUED && again->claims == 0);
    job_free(&again);
    CHECK_INT(draw(a, j, 1, "late"), ERR_STALE);
    CHECK_STR(sql("SELECT queued * 10 + running FROM imagend.load"), "10");
    check_claim(b, 4, 0, made - 1, "1");
    job_free(&j);
    empty();
}

// A job that was lost again and again comes back once more, for its end.
static void test_poison(void)
{
    struct job *j = make("", 1), *jobs[16];
    CHECK(!admit(a, j, 4));
    for (int i = 2; i <= JOB_MAX_CLAIMS + 1; i++) {
        let_leases_end();
        // The last claim needs no room.
        CHECK_INT(claim(b, i > JOB_MAX_CLAIMS ? 0 : 1, 0, jobs), 1);
        CHECK_INT(jobs[0]->claims, i);
        job_free(&j);
        j = jobs[0];
    }
    CHECK(!end(b, j, JOB_FAILED));
    let_leases_end();
    check_claim(b, 4, 0, made - 1, "");
    job_free(&j);
    empty();
}

static void test_cancel(void)
{
    struct job *waits = make("", 1), *runs = make("", 1), *lost = make("", 1);
    CHECK(!admit(a, runs, 4));
    CHECK(!admit(a, waits, 0));
    struct job *all[] = {waits, runs};
    for (int i = 0; i < 2; i++) {
        all[i]->state = JOB_CANCELLED;
        all[i]->finished = all[i]->expires = 77;
        struct job *copy = job_snapshot(all[i]);
        copy->lease = 0; // b does not draw it
        struct store_call *c = run(b, about(STORE_CANCEL, copy));
        CHECK_INT(c->n, 1);
        CHECK_INT(c->jobs[0]->state, i ? JOB_RUNNING : JOB_CANCELLED);
        store_call_free(c);
        job_free(&copy);
    }
    check_claim(a, 4, 0, made - 3, "");
    CHECK(beat(a, runs, false).cancel);
    CHECK(!end(a, runs, JOB_CANCELLED));
    check_state(runs, JOB_CANCELLED);
    // The end came first: the cancellation changes nothing.
    struct store_call *c = run(b, about(STORE_CANCEL, runs));
    CHECK(c->n && c->jobs[0]->state == JOB_CANCELLED);
    store_call_free(c);
    // A lost one that was cancelled is for its end, too.
    CHECK(!admit(a, lost, 4));
    sql("UPDATE imagend.job SET cancel = true WHERE state = 'running'");
    let_leases_end();
    check_claim(b, 0, 0, made - 1, "1");
    job_free(&waits);
    job_free(&runs);
    job_free(&lost);
    empty();
}

// A job that nobody keeps: client, replica and row. The job is not durable and has no key.
static struct job *make_brief(int room)
{
    struct job *j = make("", 1);
    j->spec.durable = j->spec.keep = false;
    CHECK(!admit(a, j, room));
    return j;
}

static void let_clients_go(void)
{
    sql("UPDATE imagend.job SET wanted_until = clock_timestamp() - interval '1 ms'"
        " WHERE wanted_until IS NOT NULL");
}

// A job whose client waits nowhere any longer is cancelled, where it runs or by the next claim; not
// while some replica says that its client waits, and not others.
static void test_unwanted(void)
{
    struct job *runs = make_brief(4), *waits = make_brief(0), *kept = make("", 1), *jobs[16], *now;
    CHECK(!admit(a, kept, 0));
    struct store_call *c = leases(STORE_BEAT, runs);
    c->lease->wanted = true;
    CHECK(!run(a, c)->lease->cancel);
    store_call_free(c);
    let_clients_go();
    c = leases(STORE_BEAT, runs);
    c->lease->wanted = true; // it is said in time for the others
    CHECK(!run(a, c)->lease->cancel);
    store_call_free(c);
    CHECK(!beat(a, runs, false).cancel);
    c = ask(STORE_WATCH, "");
    c->watched = calloc(1, sizeof *c->watched);
    c->n_watched = 1;
    memcpy(c->watched->id, waits->id, sizeof waits->id);
    c->watched->leaves = true;
    run(b, c);
    store_call_free(c);
    check_claim(b, 0, 0, made - 3, "");
    let_clients_go();
    sql("CREATE OR REPLACE FUNCTION imagend.up_ms() RETURNS bigint LANGUAGE sql AS"
        " 'SELECT 14000::bigint'"); // they may have been unable to say so
    CHECK(!beat(a, runs, false).cancel);
    check_claim(b, 0, 0, made - 3, "");
    let_leases_end();
    CHECK(beat(a, runs, false).cancel);
    CHECK_INT(claim(b, 0, 0, jobs), 1);
    CHECK_STR(jobs[0]->id, waits->id);
    CHECK(jobs[0]->cancel);
    // Its end is there for those who watch it, and for nobody else.
    CHECK(!end(b, jobs[0], JOB_CANCELLED));
    now = watch(a, waits, false, 0);
    CHECK(now && now->state == JOB_CANCELLED);
    job_free(&now);
    now = find(a, waits->id);
    CHECK(!now);
    job_free(&jobs[0]);
    job_free(&runs);
    job_free(&waits);
    job_free(&kept);
    empty();
}

static void test_deadline(void)
{
    struct job *j = make("", 1), *later = make("", 1);
    j->spec.deadline = clock_unix_ms() - 1;
    later->spec.deadline = clock_unix_ms() + 1000000;
    CHECK(!admit(a, j, 0));
    CHECK(!admit(a, later, 0));
    check_claim(b, 0, 0, made - 2, "1");
    job_free(&j);
    job_free(&later);
    empty();
}

static void test_webhook(void)
{
    struct job *j = make("", 1), *jobs[16];
    struct job_spec s = j->spec;
    char *text = j->spec_text;
    s.webhook_url = "https://hooks.example/x";
    CHECK(!job_spec_copy(&s, &j->spec, &j->spec_text));
    free(text);
    CHECK(!admit(a, j, 4));
    j->webhook_next = clock_unix_ms();
    CHECK(!end(a, j, JOB_DONE));
    check_claim(b, 0, 0, made - 1, ""); // a calls it
    let_leases_end();
    CHECK_INT(claim(b, 0, 0, jobs), 1);
    CHECK_INT(jobs[0]->claims, 1);
    CHECK_INT(jobs[0]->state, JOB_DONE);
    CHECK_INT(change(a, STORE_NOTE, j), ERR_STALE);
    jobs[0]->webhook_next = 0;
    CHECK(!change(b, STORE_NOTE, jobs[0]));
    let_leases_end();
    check_claim(a, 0, 0, made - 1, "");
    job_free(&jobs[0]);
    job_free(&j);
    empty();
}

// The other replica sees the progress of an image, and its previews once it has asked for them.
static void test_watch(void)
{
    struct job *j = make("", 1), *now;
    CHECK(!admit(a, j, 4));
    CHECK(!beat(a, j, false).previews);
    now = watch(b, j, true, 0);
    CHECK(now && now->state == JOB_RUNNING && !now->picture[0].latest && now->position == -1);
    job_free(&now);
    j->state = JOB_RUNNING;
    j->picture[0] = (struct job_picture){.state = JOB_RUNNING,
                                         .stages = 1,
                                         .step = 3,
                                         .steps = 4,
                                         .attempts = 1,
                                         .previews = 1,
                                         .preview = {64, 64},
                                         .latest = blob_create((uint8_t *)strdup("jpeg"), 4)};
    CHECK(beat(a, j, true).previews);
    CHECK(!strcmp(sql("SELECT count(*) FROM imagend.preview"), "1"));
    now = watch(b, j, true, 0);
    CHECK(now && now->picture[0].state == JOB_RUNNING && now->picture[0].step == 3);
    CHECK(now && now->picture[0].previews == 1 && now->picture[0].preview.width == 64);
    const struct blob *latest = now ? now->picture[0].latest : NULL;
    CHECK(latest && latest->size == 4 && !memcmp(latest->data, "jpeg", 4));
    job_free(&now);
    now = watch(b, j, true, 1); // seen
    CHECK(now && !now->picture[0].latest);
    job_free(&now);
    now = find(b, j->id);
    CHECK(now && now->picture[0].step == 3 && !now->lease);
    job_free(&now);
    CHECK(!end(a, j, JOB_DONE));
    now = watch(b, j, false, 0);
    CHECK(now && now->state == JOB_DONE && now->picture[0].step == 0);
    job_free(&now);
    job_free(&j);
    now = make("", 1);
    j = watch(b, now, true, 0);
    CHECK(!j);
    job_free(&now);
    empty();
}

static void tests(void)
{
    test_fencing();
    test_late_beat();
    test_database_was_away();
    test_release();
    test_poison();
    test_cancel();
    test_unwanted();
    test_deadline();
    test_webhook();
    test_watch();
}

int main(void)
{
    return replicas_main(tests);
}
