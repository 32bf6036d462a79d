// The queue's order: round-robin over owners, priority within an owner, limits, holding, ranks.
#include "job.h"
#include "queue.h"
#include "test.h"

#include <stdlib.h>

enum { WORKS = 16 };

static struct job_spec specs[WORKS];
static struct work works[WORKS];

static struct work *make(int i, const char *owner, int priority, bool durable)
{
    specs[i] = (struct job_spec){.owner = owner, .priority = priority, .durable = durable};
    works[i] = (struct work){.spec = &specs[i], .picture = i};
    return &works[i];
}

static int take(struct queue *q)
{
    const struct work *w = queue_take(q);
    return w ? w->picture : -1;
}

static void test_owners_take_turns(void)
{
    struct queue *q = queue_create();
    for (int i = 0; i < 6; i++)
        CHECK_INT(queue_push(q, make(i, "greedy", 0, false)), ERR_OK);
    queue_push(q, make(6, "alice", 0, false));
    queue_push(q, make(7, "bob", 0, false));
    CHECK_INT(queue_length(q), 8);
    CHECK_INT(queue_owner_length(q, "greedy"), 6);
    queue_rank(q);
    CHECK_INT(works[0].ahead, 0);
    CHECK_INT(works[6].ahead, 1);
    CHECK_INT(works[7].ahead, 2);
    CHECK_INT(works[5].ahead, 7);
    static const int order[] = {0, 6, 7, 1, 2, 3, 4, 5, -1};
    for (int i = 0; i < 9; i++)
        CHECK_INT(take(q), order[i]);
    queue_destroy(&q);
}

static void test_priority_within_an_owner(void)
{
    struct queue *q = queue_create();
    queue_push(q, make(0, "a", 0, false));
    queue_push(q, make(1, "a", 5, false));
    queue_push(q, make(2, "a", 5, false));
    queue_push(q, make(3, "b", 0, false));
    CHECK_INT(take(q), 1);
    CHECK_INT(take(q), 3);
    CHECK_INT(take(q), 2);
    CHECK_INT(take(q), 0);
    // A picture that comes back keeps its place.
    queue_push(q, make(4, "a", 0, false));
    queue_leave(q, &works[0]);
    queue_push(q, &works[0]);
    CHECK_INT(take(q), 0);
    CHECK_INT(take(q), 4);
    queue_destroy(&q);
}

// One owner at the limit is passed over, not waited for; the limit counts what runs of each.
static void test_limit_per_owner(void)
{
    struct queue *q = queue_create();
    queue_set_running_limit(q, 2);
    for (int i = 0; i < 4; i++)
        queue_push(q, make(i, "a", 0, false));
    queue_push(q, make(4, "b", 0, false));
    queue_push(q, make(5, "b", 0, false));
    static const int order[] = {0, 4, 1, 5, -1};
    for (int i = 0; i < 5; i++)
        CHECK_INT(take(q), order[i]);
    CHECK_INT(queue_length(q), 2);
    queue_leave(q, &works[4]); // b has nothing more
    CHECK_INT(take(q), -1);
    queue_push(q, make(6, "b", 0, false));
    CHECK_INT(take(q), 6);
    queue_leave(q, &works[0]);
    CHECK_INT(take(q), 2);
    CHECK_INT(take(q), -1);
    queue_set_running_limit(q, 0);
    CHECK_INT(take(q), 3);
    queue_destroy(&q);
}

// A removed image is neither counted nor taken, and later ones move up.
static void test_removing(void)
{
    struct queue *q = queue_create();
    for (int i = 0; i < 3; i++)
        queue_push(q, make(i, "a", 0, false));
    queue_push(q, make(3, "b", 0, false));
    CHECK(queue_remove(q, &works[0]));
    CHECK(!queue_remove(q, &works[0]));
    CHECK_INT(queue_length(q), 3);
    CHECK_INT(queue_owner_length(q, "a"), 2);
    CHECK_INT(queue_owner_length(q, "b"), 1);
    CHECK_INT(queue_owner_length(q, "c"), 0);
    queue_rank(q);
    CHECK_INT(works[1].ahead, 0);
    CHECK_INT(works[3].ahead, 1);
    CHECK_INT(works[2].ahead, 2);
    CHECK_INT(take(q), 1);
    CHECK(queue_remove(q, &works[3])); // its lane goes
    CHECK_INT(take(q), 2);
    CHECK_INT(take(q), -1);
    queue_destroy(&q);
}

static void test_limits_and_holding(void)
{
    struct queue *q = queue_create();
    queue_set_running_limit(q, 1);
    queue_push(q, make(0, "a", 0, false));
    queue_push(q, make(1, "a", 0, false));
    queue_push(q, make(2, "b", 0, true));
    CHECK_INT(take(q), 0);
    queue_hold(q, true);
    CHECK_INT(take(q), -1); // a is at its limit, b's work is durable
    queue_leave(q, &works[0]);
    CHECK_INT(take(q), 1);
    queue_hold(q, false);
    CHECK_INT(take(q), 2);
    CHECK(!queue_remove(q, &works[2]));
    queue_push(q, make(3, "a", 0, false));
    CHECK(queue_remove(q, &works[3]));
    CHECK_INT(queue_length(q), 0);
    queue_destroy(&q);
}

int main(void)
{
    test_owners_take_turns();
    test_priority_within_an_owner();
    test_limits_and_holding();
    test_limit_per_owner();
    test_removing();
    return test_end();
}
