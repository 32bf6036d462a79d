"""What one process decides by itself, replicas decide together: whose turn it is, and how much each key may have."""
import collections
import contextlib
import threading
import time

import postgres
from fleet import Fleet
from harness import eventually, main
from test_ops import bearer, keys_file, new_key


class Keys:
    """A fleet of three replicas with one slot each, whose clients have the keys a, b and c."""

    def __init__(self, *flags, rates=("", "", ""), env=None, of=None):
        made = [new_key(name, "generate,read") for name in "abc"]
        self.keys = dict(zip("abc", (key for key, _ in made)))
        self.fleet = Fleet(3, "--keys-file", keys_file(*(f"{line} {rate}" for (_, line), rate in zip(made, rates))),
                           *flags, env=env, of=of)

    def __enter__(self):
        self.fleet.__enter__()
        return self

    def __exit__(self, *error):
        self.fleet.__exit__(*error)

    def ask(self, key, method, path, body=None, replica=None):
        return (replica or self.fleet.next()).request(method, path, body, bearer(self.keys[key]))

    def post(self, key, **fields):
        return self.ask(key, "POST", "/v1/jobs", {"prompt": "a", "size": 64, **fields})

    def job(self, key, **fields):
        a = self.post(key, **fields)
        assert a.status == 202, a.body
        return a.json["id"]

    def look(self, key, job):
        return self.ask(key, "GET", "/v1/jobs/" + job).json

    def count(self, key, status):
        return len(self.ask(key, "GET", f"/v1/jobs?status={status}&limit=100").json["data"])

    @contextlib.contextmanager
    def held(self):
        """All replicas stand still with a job of c in each slot."""
        with contextlib.ExitStack() as stack:
            for s in self.fleet:
                stack.enter_context(s.held())
            for _ in self.fleet:
                self.job("c")
            eventually(lambda: self.count("c", "running") == 3)
            yield

    def order(self, jobs):
        """The jobs in the order in which they were claimed."""
        eventually(lambda: self.fleet.sql("SELECT count(*) FROM imagend.job WHERE state IN ('queued', 'running')") == "0")
        rows = self.fleet.sql("SELECT id FROM imagend.job WHERE replica <> '' ORDER BY lease").splitlines()
        return [job for job in rows if job in jobs]


def test_owners_in_turn_and_priorities():
    with Keys() as k:
        with k.held():
            many = [k.job("a") for _ in range(5)]
            urgent = k.job("a", priority=9)
            few = [k.job("b") for _ in range(3)]
            want = [urgent, few[0], many[0], few[1], many[1], few[2], *many[2:]]
            owner = dict.fromkeys(few, "b")
            for i, job in enumerate(want):
                assert k.look(owner.get(job, "a"), job)["position"] == i, (i, job)
            assert k.count("a", "queued") == 6 and k.count("b", "queued") == 3
        assert k.order(want) == want


def test_a_claim_begins_when_it_is_its_turn():
    """One that waits for another has the later number, and the whole time of a lease."""
    with Keys() as k, k.held():
        k.job("a")
        before = []
        other = threading.Thread(target=lambda: before.append(k.fleet.sql(
            "BEGIN; SELECT FROM pg_advisory_xact_lock(1768776039, 3); SELECT FROM pg_sleep(2);"
            " SELECT nextval('imagend.lease'); COMMIT").split()[-1]))
        other.start()
        eventually(lambda: k.fleet.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == "1")
        lease, whole = k.fleet.sql(
            "SELECT lease, lease_until > clock_timestamp() + interval '59 s'"
            " FROM imagend.claim('other', 1, 0, false, 60000, 9, '{\"\"}')").split("|")
        other.join()
        assert int(lease) > int(before[0]) and whole == "t", (lease, before, whole)


def test_shares_count_images():
    """A key whose jobs have many images gets no more of them than one whose jobs have one each."""
    with Keys() as k:
        with k.held():
            large = [k.job("a", n=4) for _ in range(3)]
            small = [k.job("b") for _ in range(8)]
        want = [large[0], *small[:4], large[1], *small[4:], large[2]]
        got = k.order(want)
        # A replica may claim the next job while another one is between two.
        assert [job for job in got if job in large] == large and [job for job in got if job in small] == small
        assert got == want, [want.index(job) for job in got]


def test_a_deadline_passes_in_the_queue_of_the_fleet():
    with Keys() as k:
        with k.held():
            job = eventually(lambda: k.post("a", deadline=int(time.time()) + 2).json.get("id"))
            later = k.job("a", deadline=int(time.time()) + 600)
            j = eventually(lambda: (lambda j: j if j["status"] == "failed" else None)(k.look("a", job)))
            assert j["error"]["code"] == "timeout" and j["started"] is None, j
            assert k.look("a", later)["status"] == "queued"
        eventually(lambda: k.look("a", later)["status"] == "done")


def running(k, key):
    jobs = k.ask(key, "GET", "/v1/jobs?limit=100").json["data"]
    return sum(image["status"] == "running" for j in jobs for image in j["images"])


def test_running_limit():
    """At most two images of a key are in slots, in all replicas together; also after one was killed."""
    with Keys("--running-limit-per-key", "2", env={"FAKE_SLOTS": "4"}) as k:
        with contextlib.ExitStack() as stack:
            for s in k.fleet:
                stack.enter_context(s.held())
            jobs = [k.job("a") for _ in range(5)]
            eventually(lambda: running(k, "a") == 2)
            other = k.job("b", n=4)  # more than the limit, so they come one after the other
            eventually(lambda: running(k, "b") == 2)
            time.sleep(2)  # some rounds of claims
            assert (running(k, "a"), running(k, "b")) == (2, 2)
            assert k.fleet.sql("SELECT running FROM imagend.load WHERE owner = 'a'") == "2"
            mine = [r.split("/")[0] for r in
                    k.fleet.sql("SELECT replica FROM imagend.job WHERE state = 'running' AND owner = 'a'").splitlines()]
            dead = k.fleet[int(mine[0][1:])]
            dead.process.kill()
            dead.process.wait()
            k.fleet.replicas.remove(dead)
            alive = [s for s in k.fleet]
            k.fleet.next = lambda: alive[0]
            eventually(lambda: k.fleet.sql("SELECT count(*) FROM imagend.job WHERE claims > 1") != "0")
            time.sleep(2)
            assert k.fleet.sql("SELECT running FROM imagend.load WHERE owner = 'a'") == "2"
            assert running(k, "a") <= 2
        for job in jobs:
            eventually(lambda: k.look("a", job)["status"] == "done")
        eventually(lambda: k.look("b", other)["status"] == "done")
        assert k.fleet.sql("SELECT sum(queued) + sum(running) + sum(backlog) FROM imagend.load") == "0"


def at_once(count, what):
    """The results of calls that many threads make at the same time."""
    results, ready = [], threading.Barrier(count)

    def run(i):
        ready.wait()
        results.append(what(i))
    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return results


def test_queue_bounds():
    """Requests to all replicas at once: as many are accepted as there is room for, and no more."""
    with Keys("--queue-limit", "6", "--queue-limit-per-key", "4") as k:
        with k.held():
            def submit(i):
                key = "ab"[i % 2]
                return key, k.ask(key, "POST", "/v1/jobs", {"prompt": "a", "size": 64}, k.fleet[i % 3])
            results = at_once(30, submit)
            accepted = collections.Counter(key for key, a in results if a.status == 202)
            assert sum(accepted.values()) == 6 and max(accepted.values()) <= 4, accepted
            for _, a in results:
                assert a.status == 202 or (a.status == 429 and a.json["error"]["code"] == "queue_full"), a.body
                assert a.status == 202 or int(a.headers["retry-after"]) >= 1
            # A place that is free again can be taken through any replica.
            job = k.ask("a", "GET", "/v1/jobs?status=queued").json["data"][0]["id"]
            assert k.ask("a", "DELETE", "/v1/jobs/" + job, replica=k.fleet[0]).status == 200
            eventually(lambda: k.ask("a", "POST", "/v1/jobs", {"prompt": "a", "size": 64}, k.fleet[1]).status == 202)
            assert k.ask("a", "POST", "/v1/jobs", {"prompt": "a", "size": 64}, k.fleet[2]).status == 429


def test_rates():
    """All replicas take requests from one bucket; none when the database is away."""
    own = postgres.Cluster()
    with Keys(rates=("0.01/7", "", ""), of=own) as k:
        def ask(i):
            return k.ask("a", "GET", "/v1/models", replica=k.fleet[i % 3])
        try:
            answers = at_once(24, ask)
            assert collections.Counter(a.status for a in answers) == {200: 7, 429: 17}
            for a in answers:
                assert a.status == 200 or (a.json["error"]["code"] == "rate_limit_exceeded" and
                                           int(a.headers["retry-after"]) == 60), a.body
            assert [k.ask("b", "GET", "/v1/models", replica=s).status for s in k.fleet] == [200] * 3
            dead = k.fleet[2]
            dead.process.kill()
            dead.process.wait()
            dead.start()  # its own count is gone, that of the fleet is not
            assert ask(2).status == 429
            k.fleet.sql("DELETE FROM imagend.rate")
            assert ask(2).status == 200
            own.stop()
            eventually(lambda: dead.get("/readyz").status == 503)
            a = ask(2)
            assert a.status == 503 and int(a.headers["retry-after"]) >= 1, a.body
        finally:
            own.start()


if __name__ == "__main__":
    postgres.require()
    main(globals())
