"""What every training run shares: checkpoints, EMA, learning rate, progress, averaged workers."""

import copy
import json
import math
import pathlib
import time

import torch


def learning_rate(opt, seen):
    """Warm-up, constant, then a cosine down to 2 % over the samples from decay_from to samples."""
    rate = opt.rate * min(1., (seen + 1) / opt.warmup)
    if opt.decay_from and seen > opt.decay_from:
        part = min(1., (seen - opt.decay_from) / max(1, opt.samples - opt.decay_from))
        rate *= .02 + .98 * .5 * (1 + math.cos(math.pi * part))
    return rate


class Ema:
    def __init__(self, net):
        self.net = copy.deepcopy(net).requires_grad_(False)
        self.steps = 0

    @torch.no_grad()
    def update(self, net, limit):
        self.steps += 1
        decay = min(limit, self.steps / (10 + self.steps))
        for mine, p in zip(self.net.parameters(), net.parameters()):
            mine.mul_(decay).add_(p, alpha=1 - decay)


class Checkpoint:
    """All that is needed to go on: weights, EMA, optimiser, samples seen, training seconds. Worker 0
    writes it and all workers start from it."""

    def __init__(self, folder):
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "state.pt"

    def save(self, state):
        temporary = self.path.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.rename(self.path)

    def load(self, device):
        return torch.load(self.path, map_location=device) if self.path.exists() else None


class Average:
    """Workers in step: every `every` steps all parameters become their mean over the workers."""

    def __init__(self, workers, net):
        self.workers = workers
        count = sum(p.numel() for p in net.parameters())
        self.shared = torch.zeros(workers, count).share_memory_() if workers > 1 else None
        self.barrier = torch.multiprocessing.get_context("spawn").Barrier(workers) if workers > 1 else None

    @torch.no_grad()
    def mix(self, rank, params):
        if self.workers == 1:
            return
        torch.cat([p.reshape(-1) for p in params], out=self.shared[rank])
        self.barrier.wait(300)
        mean, at = self.shared.mean(0), 0
        for p in params:
            p.copy_(mean[at:at + p.numel()].view_as(p))
            at += p.numel()
        self.barrier.wait(300)


class Progress:
    """Means of named losses, printed with speed and time left; kept as lines of JSON too."""

    def __init__(self, folder, rank, total, seen, seconds):
        self.rank, self.total, self.start = rank, total, time.time() - seconds
        self.file = (pathlib.Path(folder) / ("log%d.jsonl" % rank)).open("a")
        self.sums, self.count = {}, 0
        self.last_seen, self.last_time = seen, time.time()

    def seconds(self):
        return time.time() - self.start

    def add(self, **values):
        self.count += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.) + float(value)

    def report(self, seen, rate):
        speed = (seen - self.last_seen) / (time.time() - self.last_time)
        line = {"seen": seen, "seconds": round(self.seconds()), "per_second": round(speed, 1),
                "eta_minutes": round((self.total - seen) / max(speed, .1) / 60), "rate": round(rate, 6)}
        line.update({k: round(v / self.count, 5) for k, v in self.sums.items()})
        print("worker %d: %s" % (self.rank, line), flush=True)
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        self.sums, self.count = {}, 0
        self.last_seen, self.last_time = seen, time.time()
