"""What every training run shares: options, the loop, checkpoints, EMA, learning rate, progress,
averaged workers."""

import copy
import json
import math
import multiprocessing
import os
import pathlib
import threading
import time

import torch

import stepping
from nets import kernels, t5, tokenizer, unet

try:
    from torch.func import functional_call
except ImportError:         # before PyTorch 2
    from torch.nn.utils.stateless import functional_call


def options(args, **defaults):
    """Adds what every trainer takes; defaults: those in which they differ."""
    args.add_argument("--out", type=pathlib.Path, required=True)
    args.add_argument("--samples", type=int, help="samples to see in all")
    args.add_argument("--minutes", type=float, default=0.,
                      help="stop after so long, annealed over the last third; for a machine that is available for minutes")
    args.add_argument("--decay-from", type=int, default=0, help="samples at which the rate starts falling")
    args.add_argument("--rate", type=float, default=1.5e-3)
    args.add_argument("--warmup", type=int, default=1000, help="samples")
    args.add_argument("--batch", type=int, default=16, help="per worker")
    args.add_argument("--workers", type=int, default=1)
    args.add_argument("--average-every", type=int, default=8, help="steps between averages over the workers")
    args.add_argument("--muon", type=int, default=1)
    args.add_argument("--muon-every", type=int, default=1, help="steps between updates of a large matrix")
    args.add_argument("--ema", type=float, default=.999)
    args.add_argument("--reuse", type=float, default=2., help="times that a rendered picture is shown")
    args.add_argument("--pool", type=int, default=2048, help="rendered pictures kept")
    args.add_argument("--data-seed", type=int)
    args.add_argument("--save-minutes", type=float, default=2.)
    args.add_argument("--report-every", type=int, default=50, help="steps")
    args.add_argument("--device", default="cpu")
    args.add_argument("--graph", type=int, default=0, help="1: a GPU replays the step from a recording (stepping.py)")
    args.set_defaults(**defaults)
    return args


def _end_with_parent():
    """SIGINT, which spawn arranges for, is ignored where a shell started the run in the background."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _worker(rank, work, opt, average):
    threading.Thread(target=_end_with_parent, daemon=True).start()
    work(rank, opt, average)


def start(opt, work, net):
    """work(rank, opt, average) in every worker; net: anything with the parameters to average."""
    average = Average(opt.workers, net)
    if opt.workers == 1:
        work(0, opt, average)
    else:
        torch.multiprocessing.spawn(_worker, (work, opt, average), opt.workers)


def net_config(opt, **more):
    """The config of the run's network; of opt.net, with the keys `more`, for a run that begins."""
    state = Checkpoint(opt.out).load("cpu")
    return state["config"] if state else unet.config(**json.loads(opt.net.read_text()), **more)


def load_text(folder, device):
    """The frozen text encoder and the tokenizer of a run of train_text.py."""
    saved = torch.load(folder / "text.pt", map_location=device)
    encoder = t5.T5Encoder(saved["config"]).to(device).eval().requires_grad_(False)
    encoder.load_state_dict(saved["model"])
    return encoder, tokenizer.Tokenizer(folder / "spiece.model")


def load_net(folder, device):
    """The U-Net of a run, with its EMA weights."""
    saved = torch.load(folder / "state.pt", map_location=device)
    net = unet.UNet(saved["config"]).to(device)
    net.load_state_dict(saved["ema"])
    return net


def seconds_of_product(a):
    """The least processor time of a few products."""
    taken = []
    for _ in range(4):
        start = time.process_time()
        a @ a
        taken.append(time.process_time() - start)
    return min(taken)


def choose_arithmetic(device):
    """Products in bfloat16 (HALF) on a CPU that computes them faster; one without instructions for them takes up to
    forty times as long. Kernels in C (KERNELS) are faster than either for most 3x3 convolutions and all activations."""
    a = torch.ones(256, 256)
    unet.HALF = t5.HALF = device == "cpu" and seconds_of_product(a.bfloat16()) < seconds_of_product(a)
    unet.KERNELS = kernels.load() if device == "cpu" else None


class Bfloat16:
    """A U-Net whose forward pass is computed in bfloat16 throughout, from float32 weights that are trained: how a
    GPU trains it. (On a CPU, where that gains nothing, at most the products are in bfloat16: see choose_arithmetic.)"""

    def __init__(self, net):
        self.net = net

    def __call__(self, sample, timestep, text, *more, features=None):
        weights = {name: p.bfloat16() for name, p in self.net.named_parameters()}
        args = (sample.bfloat16(), timestep, text.bfloat16(), *more)
        with torch.autocast(sample.device.type, enabled=False):
            return functional_call(self.net, weights, args, {"features": features}).float()


def quick(net, device):
    """The net as it is called while it trains."""
    return net if device == "cpu" else Bfloat16(net)


def loop(rank, opt, average, net, optimiser, pool_from, losses, aux=None, watch=None):
    """Goes on from the checkpoint in opt.out until opt.samples are seen.

    pool_from(seed) makes the source of batches; losses(*batch) -> (loss, named means to report).
    aux: a part of the loss that is trained too but not exported. watch(net, seen): called now and then
    with the EMA weights.
    """
    ema, seen, seconds = Ema(net), 0, 0.
    checkpoint = Checkpoint(opt.out)
    state = checkpoint.load(opt.device)
    if state:
        net.load_state_dict(state["net"])
        ema.net.load_state_dict(state["ema"])
        if aux and "aux" in state:      # these two are absent after continue_from.py
            aux.load_state_dict(state["aux"])
        if "optimiser" in state:
            optimiser.load_state_dict(state["optimiser"])
        ema.steps, seen, seconds = state["ema_steps"], state["seen"], state["seconds"]
    torch.manual_seed(1000 * rank + seen)
    torch.set_float32_matmul_precision("high")      # TF32, on a GPU
    pool = pool_from(opt.data_seed + rank * 500_000_000 + seen)
    progress = Progress(opt.out, rank, opt.samples, seen, seconds)
    take_step = stepping.stepper(opt, losses, optimiser)
    step, begun, next_save = 0, time.time(), time.time() + 60 * opt.save_minutes
    ended = False
    while seen < opt.samples and not ended:
        rate = learning_rate(opt, seen)
        if opt.minutes:
            part = (time.time() - begun) / 60 / opt.minutes
            rate, ended = rate * annealing((part - 2 / 3) * 3), part >= 1
        _, parts = take_step(pool.batch(opt.batch), rate)
        seen += opt.batch * average.workers
        step += 1
        if step % opt.average_every == 0:
            average.mix(rank, optimiser.params)
        ema.update(net, opt.ema)
        progress.add(**parts)
        if step % opt.report_every == 0:
            progress.report(seen, rate)
        if rank == 0 and (time.time() > next_save or seen >= opt.samples or ended):
            state = {
                "config": net.config, "net": net.state_dict(), "ema": ema.net.state_dict(),
                "ema_steps": ema.steps, "optimiser": optimiser.state_dict(), "seen": seen,
                "seconds": progress.seconds()}
            checkpoint.save(dict(state, aux=aux.state_dict()) if aux else state)
            next_save = time.time() + 60 * opt.save_minutes
            if watch:
                watch(ema.net, seen)


def learning_rate(opt, seen):
    """Warm-up, constant, then a cosine down to 2 % over the samples from decay_from to samples."""
    rate = opt.rate * min(1., (seen + 1) / opt.warmup)
    if opt.decay_from and seen > opt.decay_from:
        rate *= annealing((seen - opt.decay_from) / max(1, opt.samples - opt.decay_from))
    return rate


def annealing(part):
    """Half a cosine from 1 down to 2 %, over part 0..1."""
    return .02 + .98 * .5 * (1 + math.cos(math.pi * min(1., max(0., part))))


class Ema:
    def __init__(self, net):
        self.net = copy.deepcopy(net).requires_grad_(False)
        self.steps = 0

    @torch.no_grad()
    def update(self, net, limit):
        self.steps += 1
        decay = min(limit, self.steps / (10 + self.steps))
        mine, theirs = list(self.net.parameters()), list(net.parameters())
        torch._foreach_mul_(mine, decay)
        torch._foreach_add_(mine, theirs, alpha=1 - decay)


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
    """Workers in step: every `every` steps all parameters become their mean over the workers. They wait for each other
    without a limit, so that a run can be paused; when one or the parent has died, the others end."""

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
        self.barrier.wait()
        mean, at = self.shared.mean(0), 0
        for p in params:
            p.copy_(mean[at:at + p.numel()].view_as(p))
            at += p.numel()
        self.barrier.wait()


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
        for name, value in values.items():      # not read yet: a GPU would have to be waited for
            self.sums[name] = self.sums.get(name, 0.) + value

    def report(self, seen, rate):
        speed = (seen - self.last_seen) / (time.time() - self.last_time)
        line = {"seen": seen, "seconds": round(self.seconds()), "per_second": round(speed, 1),
                "eta_minutes": round((self.total - seen) / max(speed, .1) / 60), "rate": round(rate, 6)}
        line.update({k: round(float(v) / self.count, 5) for k, v in self.sums.items()})
        print("worker %d: %s" % (self.rank, line), flush=True)
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        self.sums, self.count = {}, 0
        self.last_seen, self.last_time = seen, time.time()
