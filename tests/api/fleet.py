"""Replicas that share one PostgreSQL, for the tests of fleets."""
import itertools
import signal

import postgres
from harness import Server

_cluster = None


def cluster():
    global _cluster
    _cluster = _cluster or postgres.Cluster()
    return _cluster


class Fleet:
    """Replicas r0, r1, ... with one slot each, unless env says another number."""

    def __init__(self, count, *flags, env=None, of=None, each=()):
        """of: a cluster of its own; each: more flags of each replica."""
        self.cluster = of or cluster()
        self.database = self.cluster.create_database()
        self.replicas = [Server("--store", "postgres", "--database", self.cluster.connection(self.database),
                                "--replica-name", f"r{i}", *flags, *(each[i] if each else ()),
                                env={"FAKE_SLOTS": "1", "FAKE_STEP_MS": "1", **(env or {})}) for i in range(count)]
        self.turns = itertools.cycle(self.replicas)

    def __iter__(self):
        return iter(self.replicas)

    def __getitem__(self, i):
        return self.replicas[i]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for s in self.replicas:
            if s.process.poll() is None:
                s.process.send_signal(signal.SIGCONT)
                s.close()

    def next(self):
        return next(self.turns)

    def sql(self, text):
        return self.cluster.sql(text, self.database)
