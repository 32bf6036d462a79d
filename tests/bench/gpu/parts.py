"""Running the parts of a measurement one after the other, each within its time, and the report about all of them.

A part that fails, takes too long or cannot run says so in the report and costs only its own results. The report
is complete after every part. Standard library only.
"""
import json
import os
import signal
import subprocess
import time
import traceback


class Skip(Exception):
    """The part cannot run here; the text says why."""


class Late(Exception):
    """A command was stopped because the part's time was over."""


class Result:
    """A finished command: its status, its lines, and the JSON objects among them."""

    def __init__(self, status, text):
        self.status, self.text = status, text
        self.objects = []
        for line in text.splitlines():
            try:
                value = json.loads(line) if line.startswith("{") else None
            except ValueError:  # cut off
                continue
            if value is not None:
                self.objects.append(value)

    def tail(self, lines=6):
        return "\n".join(self.text.splitlines()[-lines:])


class Part:
    """What a part's function gets: its deadline, its results so far, and how to run commands within it."""

    def __init__(self, name, deadline):
        self.name, self.deadline = name, deadline
        self.data, self.notes, self.tables = {}, [], []

    def left(self):
        return self.deadline - time.monotonic()

    def note(self, text):
        self.notes.append(text)

    def table(self, head, rows):
        self.tables.append((head, rows))

    def start(self, command, log, cwd=None, env=None):
        """Starts a command in a process group of its own."""
        out = open(log, "w")
        try:
            p = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd=cwd,
                                 env={**os.environ, **(env or {})}, start_new_session=True)
        finally:
            out.close()
        p.log = log
        return p

    def finish(self, process, limit=None):
        """The result of a started command, which is stopped when the part's time, or limit, is over."""
        late = False
        try:
            process.wait(max(0.1, self.left() if limit is None else min(limit, self.left())))
        except subprocess.TimeoutExpired:
            late = True
            stop(process)
        with open(process.log, errors="replace") as f:
            result = Result(process.returncode, f.read())
        result.late = late
        return result

    def run(self, command, log, cwd=None, env=None, limit=None):
        return self.finish(self.start(command, log, cwd, env), limit)


def stop(process):
    """Ends a command and everything that it has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


class Report:
    def __init__(self, folder, title, seconds):
        self.folder, self.title = folder, title
        self.began = time.monotonic()
        self.deadline = self.began + seconds
        self.parts = []
        self.at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())

    def part(self, name, seconds, function):
        """Runs function(part) and adds what came of it, whatever happens."""
        began = time.monotonic()
        p = Part(name, min(began + seconds, self.deadline))
        status, why = "ok", ""
        if p.left() < 2:
            status, why = "not run", "no time was left"
        else:
            try:
                status = function(p) or "ok"
            except Skip as e:
                status, why = "skipped", str(e)
            except Late as e:
                status, why = "out of time", str(e)
            except Exception as e:  # an error of this kit must not lose the rest
                status, why = "failed", "".join(traceback.format_exception_only(type(e), e)).strip()
                p.note(traceback.format_exc().strip().replace("\n", "\n    "))
        self.parts.append({"name": name, "status": status, "why": why, "limit": seconds,
                           "seconds": round(time.monotonic() - began, 1), "data": p.data, "notes": p.notes,
                           "tables": p.tables})
        print(f"{time.monotonic() - self.began:5.0f} s  {name}: {status}{': ' + why if why else ''}", flush=True)
        self.write()

    def write(self):
        put(f"{self.folder}/report.json", json.dumps({
            "title": self.title, "began": self.at, "seconds": round(time.monotonic() - self.began, 1),
            "parts": self.parts}, indent=1) + "\n")
        put(f"{self.folder}/report.md", self.markdown())

    def markdown(self):
        out = [f"# {self.title}", "", f"{self.at}, {time.monotonic() - self.began:.0f} s.", ""]
        out += ["| part | result | seconds | of at most |", "|---|---|---|---|"]
        out += [row([p["name"], outcome(p), p["seconds"], round(p["limit"])]) for p in self.parts]
        for p in self.parts:
            out += ["", f"## {p['name']}", ""]
            if p["status"] != "ok":
                out += [outcome(p), ""]
            for note in p["notes"]:
                out += ["    " + note, ""]
            for head, rows in p["tables"]:
                out += [row(head), "|" + "---|" * len(head), *map(row, rows), ""]
        return "\n".join(out).rstrip() + "\n"


def outcome(part):
    return f"{part['status']}: {part['why']}" if part["why"] else part["status"]


def row(cells):
    """A row of a Markdown table; a cell is one line."""
    return "| " + " | ".join(str(c).replace("|", "\\|").replace("\n", "<br>") for c in cells) + " |"


def put(path, text):
    """A reader sees the old file or the new one, never a half."""
    with open(path + ".new", "w") as f:
        f.write(text)
    os.replace(path + ".new", path)
