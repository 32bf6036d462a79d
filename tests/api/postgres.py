"""A PostgreSQL of its own for tests: a temporary cluster with a Unix socket and a port on loopback, fsync on.

As a module: Cluster. As a program, postgres.py COMMAND...: runs a command with IMAGEND_TEST_DATABASE set to the
connection string of a new database; exits with 77, which meson counts as skipped, without Debian's package postgresql.
"""
import atexit
import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

PATIENCE = int(os.environ.get("TEST_PATIENCE", 60))  # as harness.py says


def programs():
    """The folder of initdb and postgres, or None. Debian does not put it into PATH."""
    folders = [os.path.dirname(os.path.realpath(p)) for p in (shutil.which("initdb"),) if p]
    folders += sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda p: float(p.split("/")[-2]), reverse=True)
    needed = "initdb", "postgres", "psql"
    return next((f for f in folders if all(os.access(os.path.join(f, n), os.X_OK) for n in needed)), None)


def require():
    """Ends a suite that cannot run without PostgreSQL."""
    if not programs():
        print("skipped: the package postgresql is not installed")
        sys.exit(77)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Cluster:
    """PostgreSQL refuses to run as root; then it runs as the package's user, or as nobody."""

    def __init__(self, **settings):
        self.bin = programs()
        assert self.bin, "the package postgresql is not installed"
        self.folder = tempfile.mkdtemp(prefix="imagend-pg-", dir="/tmp")
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        self.user = {}
        if os.getuid() == 0:
            names = {entry.pw_name for entry in pwd.getpwall()}
            owner = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
            self.user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
        self.data = os.path.join(self.folder, "data")
        self.port = free_port()
        self.settings = {"fsync": "on", "listen_addresses": "127.0.0.1", "unix_socket_directories": self.folder,
                         "max_connections": "60", "shared_buffers": "32MB", "log_min_messages": "warning", **settings}
        self.process = None
        self.databases = 0
        self.run("initdb", "-D", self.data, "-U", "imagend", "-E", "UTF8", "--locale=C", "--auth=trust", "--no-sync")
        atexit.register(self.stop)
        for left in range(4, -1, -1):
            try:
                self.start()
                return
            except RuntimeError as error:  # a test beside this one has taken the port meanwhile
                if not left or "could not create any TCP/IP sockets" not in str(error):
                    raise
                self.port = free_port()

    def run(self, program, *arguments, **more):
        return subprocess.run([os.path.join(self.bin, program), *arguments], check=True, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, cwd="/", timeout=PATIENCE, **self.user, **more)

    def start(self):
        self.log_path = os.path.join(self.folder, "log")
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [os.path.join(self.bin, "postgres"), "-D", self.data, "-p", str(self.port),
                 *(f"--{name}={value}" for name, value in self.settings.items())],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/", **self.user)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.sql("SELECT 1")
                return
            except subprocess.CalledProcessError as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(open(self.log_path).read()[-2000:] + error.stderr) from error
            time.sleep(0.02)

    def stop(self, sig=signal.SIGINT):
        """SIGINT ends sessions and shuts down; SIGKILL is a crash."""
        if not self.process or self.process.poll() is not None:
            return
        self.process.send_signal(sig)
        self.process.wait(PATIENCE)
        # After a crash, the children end by themselves; until then a new postmaster would refuse to start.
        deadline = time.monotonic() + PATIENCE
        while sig == signal.SIGKILL and self.children() and time.monotonic() < deadline:
            time.sleep(0.01)

    def children(self):
        """Processes that still have files of this cluster open."""
        found = []
        for pid in os.listdir("/proc"):
            try:
                if pid.isdigit() and os.readlink(f"/proc/{pid}/cwd") == self.data:
                    found.append(int(pid))
            except OSError:
                pass
        return found

    def crash(self):
        self.stop(signal.SIGKILL)

    def sql(self, text, database="postgres"):
        """The rows of a query as text, columns separated by '|'."""
        return self.run("psql", "-XAtq", "-h", self.folder, "-p", str(self.port), "-U", "imagend", "-d", database,
                        "-v", "ON_ERROR_STOP=1", "-c", text).stdout.strip()

    def create_database(self):
        self.databases += 1
        name = f"test{self.databases}"
        self.sql(f"CREATE DATABASE {name}")
        return name

    def connection(self, database, tcp=False):
        return f"host={'127.0.0.1' if tcp else self.folder} port={self.port} user=imagend dbname={database}"


def main():
    require()
    cluster = Cluster()
    database = cluster.connection(cluster.create_database())
    return subprocess.run(sys.argv[1:], env={**os.environ, "IMAGEND_TEST_DATABASE": database}).returncode


if __name__ == "__main__":
    sys.exit(main())
