"""One step of training: losses, gradients, optimiser. On a GPU the step can be recorded once as a CUDA graph and
replayed: a step is some thousands of small kernels, and starting them one by one takes longer than running them."""

import torch


class Step:
    """batch -> (loss, named means to report)."""

    def __init__(self, losses, optimiser):
        self.losses, self.optimiser = losses, optimiser

    def __call__(self, batch, rate):
        loss, parts = self.losses(*batch)
        loss.backward()
        self.optimiser.step(rate)
        return loss, parts


class Replayed:
    """The same step from a CUDA graph. Nothing in it may depend on the data: no sizes that a mask decides, no numbers
    brought back from the GPU. The means that it returns are overwritten by the next step."""

    WARM = 4        # steps before the recording, in which cuDNN chooses its algorithms and the optimiser its state

    def __init__(self, step, device):
        self.step, self.count, self.graph = step, 0, None
        self.rate = torch.zeros((), device=device)
        torch.backends.cudnn.benchmark = True

    def __call__(self, batch, rate):
        self.rate.fill_(rate)
        if self.count < self.WARM:
            return self._warm(batch)
        if not self.graph:
            self.inputs = [part.clone() for part in batch]
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.outputs = self._run(self.inputs)
        for mine, new in zip(self.inputs, batch):
            mine.copy_(new)
        self.graph.replay()
        return self.outputs

    def _run(self, batch):
        loss, parts = self.step(batch, self.rate)
        return loss.detach(), {name: part.detach() for name, part in parts.items()}

    def _warm(self, batch):
        self.count += 1
        stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            out = self._run(batch)
        current.wait_stream(stream)
        return out


def stepper(opt, losses, optimiser):
    step = Step(losses, optimiser)
    return Replayed(step, opt.device) if opt.graph and opt.device.startswith("cuda") else step
