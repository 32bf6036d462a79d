"""Muon for the inner weight matrices, AdamW for everything else.

Muon's momentum is made orthogonal by a few Newton-Schulz steps before it is applied; scaled so that
an update has the size an AdamW update would have, both share one learning rate.
"""

import torch


def _orthogonal(matrices, steps=5):
    """The quintic Newton-Schulz iteration for matrices [N, rows, columns], done on the small Gram matrix: x enters
    only twice."""
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    tall = x.shape[1] > x.shape[2]
    x = x.transpose(1, 2) if tall else x
    gram = x @ x.transpose(1, 2)
    constant, total = 3.4445 * torch.eye(gram.shape[1], device=x.device), None
    for step in range(steps):
        p = constant - 4.7750 * gram + 2.0315 * gram @ gram
        total = p if total is None else p @ total
        if step < steps - 1:
            gram = p @ gram @ p
    x = total @ x
    return x.transpose(1, 2) if tall else x


# embeddings, first and last layers and the many small projections of the timestep stay with AdamW
OUTSIDE = ("conv_in", "conv_out", "embedding", "time_emb_proj", "shared", "attention_bias")


class Muon:
    """every: a large matrix is moved only in every so manieth step, as much further: momentum hardly turns in
    so few steps, and orthogonalising is most of what a step costs. They take turns, so that steps cost
    about the same."""

    LARGE = 96      # shorter side of a matrix

    def __init__(self, params, momentum=.95, decay=.01, every=1):
        self.params, self.momentum, self.decay = list(params), momentum, decay
        self.state = [torch.zeros_like(p) for p in self.params]
        self.steps, self.turn, self.wait = 0, [], []
        large = 0
        for p in self.params:
            is_large = min(p.flatten(1).shape) >= self.LARGE
            self.wait.append(every if is_large else 1)
            self.turn.append(large % every if is_large else 0)
            large += is_large

    @torch.no_grad()
    def step(self, rate):
        self.steps += 1
        due = {}        # matrices of one shape go through the iteration together
        for p, buffer, wait, turn in zip(self.params, self.state, self.wait, self.turn):
            if p.grad is None:
                continue
            buffer.mul_(self.momentum).add_(p.grad)
            if self.steps % wait == turn:
                update = p.grad.add(buffer, alpha=self.momentum).flatten(1)
                due.setdefault((update.shape, wait), []).append((p, update))
        for (shape, wait), group in due.items():
            size = .2 * max(shape) ** .5 * wait
            updates = _orthogonal(torch.stack([update for _, update in group]))
            for (p, _), update in zip(group, updates):
                p.mul_(1 - rate * self.decay * wait)
                p.sub_(update.view_as(p).mul_(rate * size))


class Optimiser:
    def __init__(self, net, extra=(), muon=True, every=1):
        inner, outer = [], list(extra)
        for name, p in net.named_parameters():
            matrix = p.dim() >= 2 and min(p.shape[0], p[0].numel()) >= 16
            outside = any(word in name for word in OUTSIDE)
            (inner if muon and matrix and not outside else outer).append(p)
        self.muon = Muon(inner, every=every)
        on_gpu = all(p.is_cuda for p in outer)      # then a CUDA graph may hold the step
        self.adam = torch.optim.AdamW(outer, 1e-3, betas=(.9, .99), weight_decay=.01, capturable=on_gpu)
        self.params = inner + outer

    def step(self, rate, clip=1.):
        """rate: a number, or a tensor of one on the device of the weights."""
        torch.nn.utils.clip_grad_norm_(self.params, clip)
        for group in self.adam.param_groups:
            group["lr"] = rate
        self.muon.step(rate)
        self.adam.step()
        for p in self.params:
            p.grad = None

    def state_dict(self):
        return {"muon": self.muon.state, "adam": self.adam.state_dict()}

    def load_state_dict(self, state):
        for mine, saved in zip(self.muon.state, state["muon"]):
            mine.copy_(saved)
        self.adam.load_state_dict(state["adam"])
        drop_misfits(self.adam)


def drop_misfits(adam):
    """Forgets the state of what has grown since it was saved."""
    for p in [p for p, kept in adam.state.items() if "exp_avg" in kept and kept["exp_avg"].shape != p.shape]:
        del adam.state[p]
