#!/usr/bin/env python3
"""Each stage of the default cascade, imagend next to PyTorch on the CPU: the same networks, weights and steps.

usage: bench_torch.py BENCH_STAGES MODEL [ROUNDS]

In each of ROUNDS rounds (default 5) imagend draws one image, then PyTorch runs every stage with each of its settings:
one thread or as many as there are processors, channels first or last. The ratio is that of imagend to the setting with
the least median, round by round; a setting that takes more than three times as long as another in its warm-up, by the
clock and in processor time, is left out. Where other programs keep the processors busy, PyTorch's threads wait for each
other without giving way, unless OMP_WAIT_POLICY=passive is set. Processor time tells more than the clock on a busy
machine. PyTorch runs the guided steps as one batch of two, as imagend does. Afterwards imagend draws other images with
the time of each operator.
"""
import collections
import json
import os
import pathlib
import re
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
TRAINING = HERE.parents[1] / "training"
KINDS = [("conv 3x3", r"conv3_|conv|winograd"), ("1x1, linear", r"linear_|matmul_"), ("attention", r"attention_"),
         ("norm", r"group_norm|row_norm"), ("elementwise, sampling", r"")]

LINE = re.compile(r"^  (\S+) +(\d+) calls per pass +([\d.]+) ms +[\d.]+ %(?: +([\d.]+))?", re.M)


def kind_of(kernel):
    return next(kind for kind, pattern in KINDS if re.match(pattern, kernel))


class Imagend:
    def __init__(self, program, model, *args):
        self.process = subprocess.Popen([program, model, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True)
        if self.process.stdout.readline().strip() != "ready":
            sys.exit("bench_torch: bench_stages cannot draw an image")

    def draw(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def stages(self):
        """{stage: (seconds, processor seconds)} of one image."""
        self.draw()
        return {s["stage"]: (s["seconds"], s["busy"]) for s in json.loads(self.process.stdout.readline())}

    def end(self):
        """What it still prints."""
        self.process.stdin.close()
        text = self.process.stdout.read()
        self.process.wait()
        return text


class Torch:
    """The cascade in PyTorch, with the settings of the cascade's file."""

    def __init__(self, model):
        import threads  # noqa: F401  (before torch)
        import torch
        import torch.nn.functional as F
        import export
        import schedule
        self.torch, self.F, self.schedule = torch, F, schedule
        self.file = model / "cascade.json"
        self.settings = {s["path"]: s for s in json.loads(self.file.read_text())["stages"]}
        encoder, tokens = export.load_text(model / "base")
        with torch.inference_mode():
            self.text, self.null = (encoder(*tokens.encode([p])) for p in ("a red ball next to a blue cube", ""))
        self.nets = {(name, last): export.load_unet(model / name).to(
            memory_format=torch.channels_last if last else torch.contiguous_format)
            for name in self.settings for last in (False, True)}
        count = len(os.sched_getaffinity(0))
        self.choices = [(t, last) for t in sorted({1, count}) for last in (False, True)]

    def predict(self, net, stage, x, t, low):
        """x0, guided where the stage's settings say so."""
        torch, s = self.torch, self.settings[stage]
        first, last = s.get("guidance_interval", (0, 1000))
        if low is not None:
            return net(torch.cat([x, low], 1), t, self.text, torch.zeros_like(t))
        if s["guidance_scale"] == 1 or not first <= int(t[0]) <= last:
            return net(x, t, self.text)
        null, text = net(torch.cat([x, x]), t.repeat(2), torch.cat([self.null, self.text])).chunk(2)
        return null + s["guidance_scale"] * (text - null)

    def run(self, stage, threads, last):
        """(seconds, processor seconds) of one image's stage."""
        torch = self.torch
        torch.set_num_threads(threads)
        net, size = self.nets[stage, last], self.settings[stage]["size"]
        generator = torch.Generator().manual_seed(1)
        at, busy = time.perf_counter(), time.process_time()
        with torch.inference_mode():
            x, low = torch.randn(1, 3, size, size, generator=generator), None
            if stage != "base":
                low = self.F.interpolate(torch.zeros(1, 3, size // 4, size // 4), size=(size, size), mode="bilinear")
            if last:
                x = x.contiguous(memory_format=torch.channels_last)
            self.schedule.dpm_2m(lambda x, t: self.predict(net, stage, x, t, low), x,
                                 self.schedule.recommended_timesteps(stage, self.file))
        return time.perf_counter() - at, time.process_time() - busy


def median(values):
    return sorted(values)[len(values) // 2]


def row(*cells):
    print("| " + " | ".join(cells) + " |", flush=True)


def compare(program, model, rounds):
    other, ours = Torch(model), Imagend(program, str(model))
    stages = list(other.settings)
    choices = {}
    for stage in stages:
        took = {choice: other.run(stage, *choice) for choice in other.choices}
        least = [min(column) for column in zip(*took.values())]
        choices[stage] = [c for c, t in took.items() if any(a <= 3 * b for a, b in zip(t, least))]
    mine, theirs = collections.defaultdict(list), collections.defaultdict(list)
    for _ in range(rounds):
        for stage, took in ours.stages().items():
            mine[stage].append(took)
        for stage in stages:
            for choice in choices[stage]:
                theirs[stage, choice].append(other.run(stage, *choice))
    ours.end()
    print(f"medians of {rounds} rounds; load average at the end {os.getloadavg()[0]:.1f}; "
          f"PyTorch {other.torch.__version__}\n")
    row("stage", "imagend, s", "PyTorch, s", "its setting", "ratio", "imagend, cpu s", "PyTorch, cpu s",
        "its setting", "ratio")
    row(*["---"] * 9)
    for stage in stages:
        cells = [stage]
        for which in (0, 1):
            best = min(choices[stage], key=lambda c: median([r[which] for r in theirs[stage, c]]))
            a, b = [r[which] for r in mine[stage]], [r[which] for r in theirs[stage, best]]
            cells += [f"{median(a):.3f}", f"{median(b):.3f}",
                      f"{best[0]} thread{'s' if best[0] > 1 else ''}, channels {'last' if best[1] else 'first'}",
                      f"{median([x / y for x, y in zip(a, b)]):.2f}"]
        row(*cells)


def share(part, whole):
    return f"{100 * part / whole:.0f} %"


def layers(program, model):
    """Where imagend's time goes, from the text of engine_profile."""
    profiled = Imagend(program, str(model), "profile")
    for _ in range(3):
        profiled.draw()
    text = profiled.end()
    print("\nimagend's time by kind of layer, of each step; the profile separates dispatches, which costs some time\n")
    row("stage", "kind", "dispatches", "ms", "share", "GFLOP/s")
    row(*["---"] * 6)
    for part in re.split(r"\n(?=\S)", text.strip()):
        lines = part.splitlines()
        head = re.match(r"(\S+): .* ([\d.]+) ms each; ([\d.]+) ms on the device", lines[0])
        kinds = collections.defaultdict(lambda: [0, 0., 0.])
        for name, calls, ms, speed in LINE.findall(part):
            k = kinds[kind_of(name)]
            k[0] += int(calls)
            k[1] += float(ms)
            k[2] += float(speed or 0) * float(ms)
        whole, device = float(head[2]), float(head[3])
        for kind, _ in KINDS:
            if kind in kinds:
                calls, ms, work = kinds[kind]
                row(head[1], kind, str(calls), f"{ms:.2f}", share(ms, whole), f"{work / ms:.0f}" if work else "")
        row(head[1], "launching and waiting", "", f"{whole - device:.2f}", share(whole - device, whole), "")


def main():
    if not 3 <= len(sys.argv) <= 4:
        sys.exit(__doc__)
    program, model = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    try:
        import torch  # noqa: F401
    except ImportError:
        print("bench torch: skipped: PyTorch is not installed for this Python (Debian: python3-torch)")
        return
    sys.path.insert(0, str(TRAINING))
    compare(program, model, rounds)
    layers(program, model)


if __name__ == "__main__":
    main()
