// The schema of the PostgreSQL store, as migrations by number. Replicas of different versions share
// a database during an upgrade, so a migration must leave it usable by the programs that `oldest`
// names: it adds tables and columns with defaults, and what is no longer used goes one version
// later. Statements name their columns. Functions are replaced with every migration, by ones that
// older programs can call as before; another meaning needs another name. To change a function
// alone, add a migration without statements.
//
// Advisory locks (POSTGRES_LOCK, n), each held until the end of the transaction:
//   1 migrating; 2 accepting, which counts the queue; 3 claiming; 4 partitions;
//   5 counting
#include "store_postgres_impl.h"

#include "buf.h"

#include <stddef.h>

// Jobs. Times are Unix milliseconds, as in struct job; those of leases are the database's.
#define TABLE_JOB                                                                                  \
    "CREATE TABLE imagend.job ("                                                                   \
    " id text PRIMARY KEY, token text NOT NULL, seq bigint GENERATED ALWAYS AS IDENTITY,"          \
    " state text NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),"  \
    " spec text NOT NULL, used text NOT NULL, images text NOT NULL,"                               \
    " created bigint NOT NULL, started bigint NOT NULL, finished bigint NOT NULL,"                 \
    " expires bigint NOT NULL, fault int NOT NULL, message text NOT NULL,"                         \
    " webhook_tries int NOT NULL, webhook_next bigint NOT NULL,"                                   \
    " owner text NOT NULL, idempotency_key text, priority int NOT NULL, deadline bigint NOT NULL," \
    " brief boolean NOT NULL," /* nobody keeps it: lists leave it out when it has ended */         \
    " input_image text, input_mask text,"                                                          \
    " waiting int NOT NULL, bytes bigint NOT NULL DEFAULT 0, span int NOT NULL,"                   \
    " lease bigint NOT NULL DEFAULT 0, lease_until timestamptz, replica text NOT NULL DEFAULT ''," \
    " claims int NOT NULL DEFAULT 0, cancel boolean NOT NULL DEFAULT false,"                       \
    " progress text NOT NULL DEFAULT '', previews_until timestamptz,"                              \
    " UNIQUE (owner, idempotency_key)) WITH (fillfactor = 80)"

// The bytes of images: large values out of line and not compressed, in partitions that are dropped
// as a whole, because deleted rows would leave their space behind.
#define TABLE_IMAGE                                                                                \
    "CREATE TABLE imagend.image ("                                                                 \
    " span int NOT NULL, job text NOT NULL, picture int NOT NULL, bytes bytea NOT NULL,"           \
    " PRIMARY KEY (span, job, picture)) PARTITION BY LIST (span)"

// Counts the images that wait and run, per owner, in the same transaction as each change, and the
// backlog: those that wait in the replica that has claimed their job. `turn` is
// the number of images that an owner has had: the owner with the fewest comes next. One that had
// nothing to draw does not get what it missed, and comes after those that are level with it.
#define FUNCTION_TURN                                                                              \
    "CREATE OR REPLACE FUNCTION imagend.turn_now(who text) RETURNS bigint LANGUAGE sql AS $f$"     \
    " SELECT coalesce((SELECT min(turn) FROM imagend.load WHERE queued + running > 0"              \
    " AND owner <> who), (SELECT max(turn) FROM imagend.load), 0) $f$"

#define FUNCTION_COUNT                                                                             \
    "CREATE OR REPLACE FUNCTION imagend.count_images() RETURNS trigger LANGUAGE plpgsql AS $f$"    \
    " DECLARE who text; q int := 0; r int := 0; b int := 0; busy int; BEGIN"                       \
    " IF TG_OP <> 'INSERT' THEN who := OLD.owner;"                                                 \
    " IF OLD.state = 'queued' THEN q := q - OLD.waiting; END IF;"                                  \
    " IF OLD.state = 'running' THEN r := r - OLD.waiting;"                                         \
    " b := b - least(OLD.backlog, OLD.waiting); END IF; END IF;"                                   \
    " IF TG_OP <> 'DELETE' THEN who := NEW.owner;"                                                 \
    " IF NEW.state = 'queued' THEN q := q + NEW.waiting; END IF;"                                  \
    " IF NEW.state = 'running' THEN r := r + NEW.waiting;"                                         \
    " b := b + least(NEW.backlog, NEW.waiting); END IF; END IF;"                                   \
    " IF q = 0 AND r = 0 AND b = 0 THEN RETURN NULL; END IF;"                                      \
    " UPDATE imagend.load SET queued = queued + q, running = running + r, backlog = backlog + b"   \
    " WHERE owner = who RETURNING queued + running - q - r INTO busy;"                             \
    " IF NOT FOUND THEN INSERT INTO imagend.load AS l (owner, queued, running, backlog)"           \
    " VALUES (who, q, r, b) ON CONFLICT (owner) DO UPDATE SET queued = l.queued + q,"              \
    " running = l.running + r, backlog = l.backlog + b; busy := 0; END IF;"                        \
    " IF busy = 0 AND q + r > 0 THEN UPDATE imagend.load SET since = nextval('imagend.served'),"   \
    " turn = greatest(turn, imagend.turn_now(who)) WHERE owner = who; END IF;"                     \
    " RETURN NULL; END $f$"

// The number of images ahead of jobs that wait, in the order of CLAIM_WAITING. In a long queue, all
// others count, since ordering it for each question would take too long.
#define FUNCTION_POSITIONS                                                                         \
    "CREATE OR REPLACE FUNCTION imagend.positions(ids text[]) RETURNS TABLE (which text,"          \
    " ahead bigint) LANGUAGE plpgsql AS $f$ DECLARE total bigint; BEGIN"                           \
    " IF NOT EXISTS (SELECT FROM imagend.job WHERE id = ANY (ids) AND state = 'queued')"           \
    " THEN RETURN; END IF;"                                                                        \
    " SELECT sum(queued) INTO total FROM imagend.load;"                                            \
    " IF total > 10000 THEN RETURN QUERY SELECT j.id, total - j.waiting FROM imagend.job j"        \
    " WHERE j.id = ANY (ids) AND j.state = 'queued'; RETURN; END IF;"                              \
    " RETURN QUERY SELECT r.id, r.before FROM (SELECT o.id, coalesce(sum(o.waiting) OVER"          \
    " (ORDER BY o.turn, o.since, o.priority DESC, o.seq"                                           \
    " ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before FROM"                        \
    " (SELECT j.id, j.waiting, j.priority, j.seq, l.since, l.turn + coalesce(sum(j.waiting) OVER"  \
    " (PARTITION BY j.owner ORDER BY j.priority DESC, j.seq"                                       \
    " ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS turn FROM imagend.job j"            \
    " JOIN imagend.load l ON l.owner = j.owner WHERE j.state = 'queued') o) r"                     \
    " WHERE r.id = ANY (ids); END $f$"

// Takes one request from an owner's bucket. Returns how many seconds it has to wait; 0: taken.
#define FUNCTION_SPEND                                                                             \
    "CREATE OR REPLACE FUNCTION imagend.spend(who text, speed float8, burst float8)"               \
    " RETURNS float8 LANGUAGE plpgsql AS $f$ DECLARE has float8; BEGIN"                            \
    " INSERT INTO imagend.rate (owner, tokens) VALUES (who, burst) ON CONFLICT DO NOTHING;"        \
    " SELECT least(burst, tokens + speed * greatest(0, extract(epoch FROM clock_timestamp()"       \
    " - filled))) INTO has FROM imagend.rate WHERE owner = who FOR UPDATE;"                        \
    " IF has < 1 THEN RETURN (1 - has) / speed; END IF;"                                           \
    " UPDATE imagend.rate SET tokens = has - 1, filled = clock_timestamp() WHERE owner = who;"     \
    " RETURN 0; END $f$"

// Refuses a job that the queue has no room for, unless it or one with its key is there already. A
// queue that is full while others are being accepted is so without waiting for their commits.
#define FUNCTION_ROOM                                                                              \
    "CREATE OR REPLACE FUNCTION imagend.check_room(job_id text, who text, key text, n int,"        \
    " most int, most_owner int) RETURNS void LANGUAGE plpgsql AS $f$ DECLARE total bigint; own "   \
    "bigint;"                                                                                      \
    " BEGIN IF NOT pg_try_advisory_xact_lock(" POSTGRES_LOCK ", 2) THEN"                           \
    " IF key IS NULL AND most > 0 AND NOT EXISTS (SELECT FROM imagend.job WHERE id = job_id) AND"  \
    " (SELECT coalesce(sum(queued + backlog), 0) + n > most FROM imagend.load) THEN"               \
    " RAISE EXCEPTION 'the queue is full' USING ERRCODE = 'IMG01'; END IF;"                        \
    " PERFORM pg_advisory_xact_lock(" POSTGRES_LOCK ", 2); END IF;"                                \
    " IF most = 0 OR EXISTS (SELECT FROM imagend.job WHERE id = job_id OR (owner = who AND"        \
    " idempotency_key = key)) THEN RETURN; END IF;"                                                \
    " SELECT coalesce(sum(queued + backlog), 0),"                                                  \
    " coalesce(sum(queued + backlog) FILTER (WHERE owner = who), 0)"                               \
    " INTO total, own FROM imagend.load;"                                                          \
    " IF total + n > most THEN RAISE EXCEPTION 'the queue is full' USING ERRCODE = 'IMG01'; END "  \
    "IF;"                                                                                          \
    " IF own + n > most_owner THEN RAISE EXCEPTION 'the owner has too many images in the queue'"   \
    " USING ERRCODE = 'IMG02'; END IF; END $f$"

// The name of the model in a job's spec; "" for the default.
#define FUNCTION_MODEL                                                                             \
    "CREATE OR REPLACE FUNCTION imagend.model_of(spec text) RETURNS text LANGUAGE plpgsql AS $f$"  \
    " BEGIN RETURN coalesce(spec::json ->> 'model', '');"                                          \
    " EXCEPTION WHEN OTHERS THEN RETURN ''; END $f$" /* the row is damaged */

// Programs of versions before 4 do not name the model of a job that they accept.
#define FUNCTION_NAME                                                                              \
    "CREATE OR REPLACE FUNCTION imagend.name_model() RETURNS trigger LANGUAGE plpgsql AS $f$"      \
    " BEGIN NEW.model := imagend.model_of(NEW.spec); RETURN NEW; END $f$"

// Planning again for each list of models would take longer than the statements.
#define PLANNED_ONCE " LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $f$"

// Leases a job that was just accepted to the replica, if none of its models has a job that waits.
// The order makes the index the only way to find one: the others may be many.
#define FUNCTION_START                                                                             \
    "CREATE OR REPLACE FUNCTION imagend.start(job_id text, me text, room int, most int, ms int,"   \
    " models text[]) RETURNS void" PLANNED_ONCE " DECLARE n int; who text; BEGIN"                  \
    " SELECT waiting, owner INTO n, who FROM imagend.job WHERE id = job_id AND state = 'queued'"   \
    " AND lease = 0;"                                                                              \
    " IF NOT FOUND OR room <= 0 OR EXISTS (SELECT FROM unnest(models) AS m (name), LATERAL"        \
    " (SELECT FROM imagend.job w WHERE w.state = 'queued' AND w.model = m.name"                    \
    " AND w.id <> job_id ORDER BY w.owner, w.priority DESC, w.seq LIMIT 1) f) THEN RETURN; END "   \
    "IF;"                                                                                          \
    " IF most > 0 AND EXISTS (SELECT FROM imagend.load WHERE owner = who AND running > 0"          \
    " AND running + n > most) THEN RETURN; END IF;"                                                \
    " UPDATE imagend.job SET state = 'running', lease = nextval('imagend.lease'), replica = me,"   \
    " claims = claims + 1, backlog = greatest(n - room, 0),"                                       \
    " lease_until = clock_timestamp() + ms * interval '1 ms' WHERE id = job_id;"                   \
    " UPDATE imagend.load SET turn = turn + greatest(n, 1) WHERE owner = who; END $f$"

// Jobs whose lease has ended wait again. A database that was away has let all leases end, so their
// replicas get the time of a lease to renew them.
#define CLAIM_ENDED                                                                                \
    " UPDATE imagend.job SET state = 'queued', lease_until = NULL, progress = ''"                  \
    " WHERE state = 'running' AND lease_until < clock_timestamp()"                                 \
    " AND imagend.up_ms() > ms;"

// A job that nobody keeps is wanted as long as a replica says that its client waits; not so when
// that replica is gone.
#define CLAIM_UNWANTED                                                                             \
    " UPDATE imagend.job SET cancel = true WHERE state = 'queued' AND NOT cancel"                  \
    " AND wanted_until < clock_timestamp() AND imagend.up_ms() > ms;"

// Jobs that the core has to end, and webhooks.
#define CLAIM_DUE                                                                                  \
    " FOR j IN SELECT * FROM imagend.job WHERE state = 'queued'"                                   \
    " AND (cancel OR deadline > 0 OR claims > 0)"                                                  \
    " AND (cancel OR (deadline > 0 AND deadline <= now_ms) OR claims >= attempts)"                 \
    " LIMIT 100 FOR UPDATE SKIP LOCKED LOOP"                                                       \
    " UPDATE imagend.job SET state = 'running', lease = ticket, replica = me, claims = claims + "  \
    "1,"                                                                                           \
    " lease_until = until WHERE id = j.id RETURNING * INTO j; RETURN NEXT j; END LOOP;"            \
    " IF hooks THEN FOR j IN SELECT * FROM imagend.job WHERE webhook_next > 0"                     \
    " AND webhook_next <= now_ms AND (lease_until IS NULL OR lease_until < clock_timestamp())"     \
    " AND state IN ('done', 'failed', 'cancelled') LIMIT 100 FOR UPDATE SKIP LOCKED LOOP"          \
    " UPDATE imagend.job SET lease = ticket, replica = me, lease_until = until WHERE id = j.id"    \
    " RETURNING * INTO j; RETURN NEXT j; END LOOP; END IF;"

// Owners in turn: of those with a job of one of the models, the one that has had the fewest images
// comes next. The owners' order and the first job of each model come from indexes, so that jobs of
// other models cost nothing, however many wait.
#define CLAIM_NEXT                                                                                 \
    " SELECT l.owner, c.id INTO who, pick FROM (SELECT owner, turn, since FROM imagend.load"       \
    " WHERE queued > 0 AND (most = 0 OR running < most) AND NOT owner = ANY (skipped)"             \
    " ORDER BY turn, since, owner OFFSET 0) l, LATERAL (SELECT f.id"                               \
    " FROM unnest(models) AS m (name), LATERAL (SELECT w.id, w.priority, w.seq"                    \
    " FROM imagend.job w WHERE w.state = 'queued' AND w.model = m.name AND w.owner = l.owner"      \
    " AND NOT w.id = ANY (taken) ORDER BY w.priority DESC, w.seq LIMIT 1) f"                       \
    " ORDER BY f.priority DESC, f.seq LIMIT 1) c ORDER BY l.turn, l.since, l.owner LIMIT 1;"       \
    " EXIT WHEN NOT FOUND;"

#define CLAIM_WAITING                                                                              \
    " WHILE free > 0 LOOP" CLAIM_NEXT                                                              \
    " SELECT running INTO busy FROM imagend.load WHERE owner = who FOR UPDATE;"                    \
    " SELECT * INTO j FROM imagend.job WHERE id = pick AND state = 'queued'"                       \
    " FOR UPDATE SKIP LOCKED;"                                                                     \
    " IF NOT FOUND THEN taken := taken || pick; CONTINUE; END IF;"                                 \
    " IF most > 0 AND busy > 0 AND busy + j.waiting > most THEN"                                   \
    " skipped := skipped || who; CONTINUE; END IF;"                                                \
    " UPDATE imagend.job SET state = 'running', lease = ticket, replica = me,"                     \
    " claims = claims + 1, backlog = greatest(waiting - free, 0),"                                 \
    " lease_until = until WHERE id = j.id RETURNING * INTO j;"                                     \
    " UPDATE imagend.load SET turn = turn + greatest(j.waiting, 1) WHERE owner = who;"             \
    " free := free - greatest(j.waiting, 1); RETURN NEXT j; END LOOP;"

// One replica claims at a time. A lease gets its number and its end after the wait for that, so
// that numbers are in the order of the claims.
#define FUNCTION_CLAIM                                                                             \
    "CREATE OR REPLACE FUNCTION imagend.claim(me text, room int, most int, hooks boolean, ms int," \
    " attempts int, models text[]) RETURNS SETOF imagend.job" PLANNED_ONCE " DECLARE"              \
    " j imagend.job; who text; pick text; busy int; free int := room;"                             \
    " skipped text[] := '{}'; taken text[] := '{}';"                                               \
    " ticket bigint; now_ms bigint; until timestamptz; BEGIN"                                      \
    " PERFORM pg_advisory_xact_lock(" POSTGRES_LOCK ", 3);"                                        \
    " ticket := nextval('imagend.lease'); now_ms := imagend.now_ms();"                             \
    " until := clock_timestamp() + ms * interval '1 ms';" CLAIM_ENDED CLAIM_UNWANTED               \
        CLAIM_DUE CLAIM_WAITING " END $f$"

// The same for programs of versions before 4, which say nothing about their models.
#define FUNCTION_WAITING                                                                           \
    "CREATE OR REPLACE FUNCTION imagend.waiting_models() RETURNS text[] LANGUAGE sql AS $f$"       \
    " SELECT ARRAY(SELECT DISTINCT model FROM imagend.job WHERE state = 'queued') $f$"
#define FUNCTION_START_1                                                                           \
    "CREATE OR REPLACE FUNCTION imagend.start(job_id text, me text, room int, most int, ms int)"   \
    " RETURNS void LANGUAGE sql AS $f$ SELECT imagend.start(job_id, me, room, most, ms,"           \
    " imagend.waiting_models()) $f$"
#define FUNCTION_CLAIM_1                                                                           \
    "CREATE OR REPLACE FUNCTION imagend.claim(me text, room int, most int, hooks boolean, ms int," \
    " attempts int) RETURNS SETOF imagend.job LANGUAGE sql AS $f$ SELECT * FROM"                   \
    " imagend.claim(me, room, most, hooks, ms, attempts, imagend.waiting_models()) $f$"

// Begins a new partition when the newest is old enough, and drops those without a job. A partition
// that has just been replaced may still get the images of a transaction under way.
#define FUNCTION_TEND                                                                              \
    "CREATE OR REPLACE FUNCTION imagend.tend(width_ms bigint) RETURNS void LANGUAGE plpgsql AS "   \
    "$f$"                                                                                          \
    " DECLARE s record; now_ms bigint := imagend.now_ms(); newest int; began_ms bigint; BEGIN"     \
    " IF NOT pg_try_advisory_xact_lock(" POSTGRES_LOCK ", 4) THEN RETURN; END IF;"                 \
    " SELECT span, began INTO newest, began_ms FROM imagend.span ORDER BY span DESC LIMIT 1;"      \
    " IF NOT FOUND OR began_ms + width_ms <= now_ms THEN"                                          \
    " newest := coalesce(newest, 0) + 1;"                                                          \
    " EXECUTE format('CREATE TABLE imagend.image_%s (LIKE imagend.image INCLUDING ALL)', newest);" \
    " EXECUTE format('ALTER TABLE imagend.image_%s ALTER bytes SET STORAGE EXTERNAL', newest);"    \
    " EXECUTE format('ALTER TABLE imagend.image ATTACH PARTITION imagend.image_%s"                 \
    " FOR VALUES IN (%s)', newest, newest);"                                                       \
    " INSERT INTO imagend.span (span, began) VALUES (newest, now_ms); RETURN; END IF;"             \
    " FOR s IN SELECT a.span FROM imagend.span a WHERE a.span < newest AND (SELECT min(began)"     \
    " FROM imagend.span b WHERE b.span > a.span) < now_ms - 60000 AND NOT EXISTS"                  \
    " (SELECT FROM imagend.job WHERE span = a.span) ORDER BY a.span LIMIT 1 LOOP"                  \
    " PERFORM set_config('lock_timeout', '500ms', true);"                                          \
    " BEGIN EXECUTE format('DROP TABLE IF EXISTS imagend.image_%s', s.span);"                      \
    " DELETE FROM imagend.span WHERE span = s.span;"                                               \
    " EXCEPTION WHEN lock_not_available THEN RETURN; END; END LOOP;"                               \
    " DELETE FROM imagend.input i WHERE stored < clock_timestamp() - interval '1 hour' AND NOT"    \
    " EXISTS (SELECT FROM imagend.job WHERE input_image = i.name) AND NOT EXISTS"                  \
    " (SELECT FROM imagend.job WHERE input_mask = i.name);"                                        \
    " DELETE FROM imagend.preview p WHERE NOT EXISTS (SELECT FROM imagend.job WHERE id = p.job"    \
    " AND state = 'running');"                                                                     \
    " END $f$"

// Counts the jobs for all replicas: at most once per second, and for at most a hundredth of the
// time, however many jobs and replicas there are, except for again. Ended jobs that nobody keeps
// are not counted.
#define FUNCTION_STATS                                                                             \
    "CREATE OR REPLACE FUNCTION imagend.stats(again boolean, OUT jobs bigint, OUT ended bigint,"   \
    " OUT bytes bigint, OUT number bigint, OUT fresh boolean) LANGUAGE plpgsql AS $f$"             \
    " DECLARE began timestamptz := clock_timestamp(); due timestamptz; BEGIN fresh := false;"      \
    " SELECT s.jobs, s.ended, s.bytes, s.number, s.due INTO jobs, ended, bytes, number, due"       \
    " FROM imagend.stats s;"                                                                       \
    " IF NOT again AND due > began AND due < began + interval '10 min' THEN RETURN; END IF;"       \
    " IF NOT pg_try_advisory_xact_lock(" POSTGRES_LOCK                                             \
    ", 5) AND due IS NOT NULL THEN RETURN; END IF;"                                                \
    " fresh := true; number := coalesce(number, 0) + 1;"                                           \
    " SELECT count(*), count(*) FILTER (WHERE " POSTGRES_ENDED "),"                                \
    " coalesce(sum(j.bytes), 0)::bigint INTO jobs, ended, bytes FROM imagend.job j"                \
    " WHERE NOT (brief AND " POSTGRES_ENDED ");"                                                   \
    " due := clock_timestamp() + greatest(interval '0.9 s', least(interval '5 min',"               \
    " 100 * (clock_timestamp() - began)));"                                                        \
    " INSERT INTO imagend.stats AS s VALUES (1, jobs, ended, bytes, number, due)"                  \
    " ON CONFLICT (one) DO UPDATE SET jobs = EXCLUDED.jobs, ended = EXCLUDED.ended,"               \
    " bytes = EXCLUDED.bytes, number = EXCLUDED.number, due = EXCLUDED.due; END $f$"

static const struct migration {
    int version, oldest; // oldest: version of the oldest program that can use the result
    const char *statements[32];
} migrations[] = {
    {1,
     1,
     {
         "CREATE SEQUENCE imagend.lease",
         "CREATE SEQUENCE imagend.served",
         TABLE_JOB,
         "CREATE INDEX job_page ON imagend.job (owner, created, seq)",
         "CREATE INDEX job_waiting ON imagend.job (owner, priority DESC, seq)"
         " WHERE state = 'queued'",
         "CREATE INDEX job_due ON imagend.job (deadline) WHERE state = 'queued'"
         " AND (cancel OR deadline > 0 OR claims > 0)",
         "CREATE INDEX job_webhook ON imagend.job (webhook_next) WHERE webhook_next > 0",
         "CREATE INDEX job_running ON imagend.job (lease_until) WHERE state = 'running'",
         "CREATE INDEX job_expires ON imagend.job (expires)"
         " WHERE state IN ('done', 'failed', 'cancelled')",
         "CREATE INDEX job_stats ON imagend.job (state) INCLUDE (bytes)",
         "CREATE INDEX job_span ON imagend.job (span)",
         "CREATE INDEX job_input_image ON imagend.job (input_image)"
         " WHERE input_image IS NOT NULL",
         "CREATE INDEX job_input_mask ON imagend.job (input_mask) WHERE input_mask IS NOT NULL",
         TABLE_IMAGE,
         "CREATE TABLE imagend.span (span int PRIMARY KEY, began bigint NOT NULL)",
         "CREATE TABLE imagend.input (name text PRIMARY KEY, stored timestamptz NOT NULL DEFAULT"
         " clock_timestamp(), bytes bytea NOT NULL)",
         "ALTER TABLE imagend.input ALTER bytes SET STORAGE EXTERNAL",
         // Previews may be lost.
         "CREATE UNLOGGED TABLE imagend.preview (job text NOT NULL, picture int NOT NULL,"
         " number int NOT NULL, width int NOT NULL, height int NOT NULL, bytes bytea NOT NULL,"
         " PRIMARY KEY (job, picture))",
         "CREATE TABLE imagend.load (owner text PRIMARY KEY, queued int NOT NULL,"
         " running int NOT NULL, served bigint NOT NULL DEFAULT 0) WITH (fillfactor = 50)",
     }},
    {2,
     1,
     {
         "ALTER TABLE imagend.load ADD turn bigint NOT NULL DEFAULT 0,"
         " ADD since bigint NOT NULL DEFAULT 0," // in place of served
         " ADD backlog int NOT NULL DEFAULT 0",
         "ALTER TABLE imagend.job ADD wanted_until timestamptz,"
         " ADD backlog int NOT NULL DEFAULT 0",
         "DROP INDEX imagend.job_stats",
         "CREATE INDEX job_stats ON imagend.job (state, brief) INCLUDE (bytes)",
         "CREATE INDEX job_wanted ON imagend.job (wanted_until) WHERE state = 'queued'"
         " AND wanted_until IS NOT NULL",
         // After a crash, all buckets are full.
         "CREATE UNLOGGED TABLE imagend.rate (owner text PRIMARY KEY, tokens float8 NOT NULL,"
         " filled timestamptz NOT NULL DEFAULT clock_timestamp()) WITH (fillfactor = 50)",
     }},
    {3,
     1,
     {
         // One row. After a crash, the jobs are counted again.
         "CREATE UNLOGGED TABLE imagend.stats (one int PRIMARY KEY, jobs bigint NOT NULL,"
         " ended bigint NOT NULL, bytes bigint NOT NULL, number bigint NOT NULL,"
         " due timestamptz NOT NULL) WITH (fillfactor = 50)",
     }},
    {4,
     1,
     {
         "ALTER TABLE imagend.job ADD model text", // "" for the default; NULL: had ended before
         "CREATE INDEX job_model ON imagend.job (model, owner, priority DESC, seq)"
         " WHERE state = 'queued'",
         "DROP INDEX imagend.job_waiting",
         FUNCTION_MODEL,
         "UPDATE imagend.job SET model = imagend.model_of(spec) WHERE " POSTGRES_UNFINISHED,
     }},
};

static const char *const functions[] = {
    "CREATE OR REPLACE FUNCTION imagend.now_ms() RETURNS bigint LANGUAGE sql AS"
    " $f$ SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint $f$",
    "CREATE OR REPLACE FUNCTION imagend.up_ms() RETURNS bigint LANGUAGE sql AS $f$ SELECT (extract("
    "epoch FROM clock_timestamp() - pg_postmaster_start_time()) * 1000)::bigint $f$",
    FUNCTION_TURN,
    FUNCTION_COUNT,
    "CREATE OR REPLACE TRIGGER count_images AFTER INSERT OR DELETE OR UPDATE OF state, waiting,"
    " backlog ON imagend.job FOR EACH ROW EXECUTE FUNCTION imagend.count_images()",
    FUNCTION_POSITIONS,
    FUNCTION_SPEND,
    FUNCTION_ROOM,
    FUNCTION_MODEL,
    FUNCTION_NAME,
    "CREATE OR REPLACE TRIGGER name_model BEFORE INSERT ON imagend.job FOR EACH ROW"
    " WHEN (NEW.model IS NULL) EXECUTE FUNCTION imagend.name_model()",
    FUNCTION_START,
    FUNCTION_CLAIM,
    FUNCTION_WAITING,
    FUNCTION_START_1,
    FUNCTION_CLAIM_1,
    FUNCTION_TEND,
    FUNCTION_STATS,
};

char *postgres_migration(void)
{
    struct buf b = {0};
    buf_puts(&b, "DO $migrate$ DECLARE changed boolean := false; BEGIN"
                 " IF to_regclass('imagend.migration') IS NULL THEN"
                 " PERFORM pg_advisory_xact_lock(" POSTGRES_LOCK ", 1);"
                 " IF to_regnamespace('imagend') IS NULL THEN CREATE SCHEMA imagend; END IF;"
                 " CREATE TABLE IF NOT EXISTS imagend.migration (version int PRIMARY KEY,"
                 " oldest int NOT NULL, applied timestamptz NOT NULL DEFAULT clock_timestamp());"
                 " END IF;");
    for (size_t i = 0; i < sizeof migrations / sizeof *migrations; i++) {
        const struct migration *m = &migrations[i];
        buf_printf(&b,
                   " IF NOT EXISTS (SELECT FROM imagend.migration WHERE version = %d) THEN"
                   " PERFORM pg_advisory_xact_lock(" POSTGRES_LOCK ", 1);"
                   " IF NOT EXISTS (SELECT FROM imagend.migration WHERE version = %d) THEN ",
                   m->version, m->version);
        for (int k = 0; m->statements[k]; k++)
            buf_printf(&b, "%s; ", m->statements[k]);
        buf_printf(&b,
                   "INSERT INTO imagend.migration (version, oldest) VALUES (%d, %d);"
                   " changed := true; END IF; END IF;",
                   m->version, m->oldest);
    }
    buf_puts(&b, " IF changed THEN ");
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        buf_printf(&b, "%s; ", functions[i]);
    buf_puts(&b, "END IF; END $migrate$");
    return buf_take(&b);
}
