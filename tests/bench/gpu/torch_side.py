#!/usr/bin/env python3
"""PyTorch's side of the comparison, on its GPU if it has one: one JSON object per line, as soon as it is known.

    torch_side.py facts
    torch_side.py ceilings SECONDS
    torch_side.py ops SHAPES.json SECONDS      the shapes that `bench_ops` printed
    torch_side.py unet CONFIG.json EDGE BATCH SECONDS eager|compiled

Half precision on a GPU, single on a CPU. Run by gpu.py.
"""
import json
import os
import sys
import time

import torch
import torch.nn.functional as F

HERE = os.path.dirname(os.path.abspath(__file__))
# training/nets: in the bundle, or in the source tree.
sys.path[:0] = [os.path.normpath(os.path.join(HERE, up, "training")) for up in ("..", "../../..")]

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
DTYPE = torch.float16 if GPU else torch.float32


def show(**values):
    print(json.dumps(values), flush=True)


def wait():
    if GPU:
        torch.cuda.synchronize()


def median(run, seconds):
    """Median seconds of one run, waiting for each, after two warm-ups; at least three runs."""
    for _ in range(2):
        run()
    wait()
    took, began = [], time.perf_counter()
    while len(took) < 3 or (time.perf_counter() - began < seconds and len(took) < 1000):
        at = time.perf_counter()
        run()
        wait()
        took.append(time.perf_counter() - at)
    return sorted(took)[len(took) // 2]


def back_to_back(run, seconds):
    """Seconds of one run among many that were queued together: the device's time without its launch."""
    one = median(run, seconds / 2)
    n = max(1, min(1000, int(seconds / 2 / max(one, 1e-6))))
    at = time.perf_counter()
    for _ in range(n):
        run()
    wait()
    return (time.perf_counter() - at) / n


# ---- parts ----------------------------------------------------------------------------------------------------------

def facts():
    show(torch=torch.__version__, cuda=torch.version.cuda, device=torch.cuda.get_device_name() if GPU else "cpu",
         threads=torch.get_num_threads(), dtype=str(DTYPE).split(".")[1])


def ceilings(seconds):
    size = 1 << (30 if GPU else 26)
    a = torch.zeros(size, dtype=torch.uint8, device=DEVICE)
    b = torch.empty_like(a)
    took = back_to_back(lambda: b.copy_(a), seconds / 4)
    show(ceiling="copy", gb_s=2 * size / took / 1e9, note="bytes read and written")
    if GPU:
        host = torch.zeros(1 << 28, dtype=torch.uint8).pin_memory()
        to = torch.empty(1 << 28, dtype=torch.uint8, device=DEVICE)
        took = back_to_back(lambda: to.copy_(host, non_blocking=True), seconds / 4)
        show(ceiling="upload from pinned memory", gb_s=(1 << 28) / took / 1e9)
    n = 8192 if GPU else 1024
    for dtype in ([torch.float16, torch.bfloat16, torch.float32] if GPU else [torch.float32]):
        x, y = (torch.randn(n, n, device=DEVICE, dtype=dtype) for _ in range(2))
        took = back_to_back(lambda: x @ y, seconds / 6)
        show(ceiling=f"matrix product {n} {str(dtype).split('.')[1]}", tflop_s=2 * n ** 3 / took / 1e12)


def op(s):
    """A function that runs the shape once."""
    n, c = s["n"], s["in"]

    def random(*shape):
        return torch.randn(*shape, device=DEVICE, dtype=DTYPE)
    if s["kind"] == "conv":
        x = random(n, c, s["h"], s["w"]).contiguous(memory_format=torch.channels_last)
        w = (random(s["out"], c, 3, 3) * (9 * c) ** -.5).contiguous(memory_format=torch.channels_last)
        return lambda: F.conv2d(x, w, padding=1)
    if s["kind"] == "linear":
        x, w = random(n * s["h"] * s["w"], c), random(s["out"], c) * c ** -.5
        return lambda: F.linear(x, w)
    heads, d, queries = s["heads"], c // s["heads"], s["h"] * s["w"]
    q, k, v = (random(n, heads, m, d) for m in (queries, queries + s["keys"], queries + s["keys"]))
    if hasattr(F, "scaled_dot_product_attention"):
        return lambda: F.scaled_dot_product_attention(q, k, v)
    return lambda: (q @ k.transpose(2, 3) * d ** -.5).softmax(-1) @ v


def ops(path, seconds):
    with open(path) as f:
        shapes = json.load(f)
    for i, s in enumerate(shapes):
        run = op(s)
        show(shape=i, seconds=median(run, seconds / len(shapes)), back_to_back=back_to_back(run, seconds / len(shapes)))


def unet(path, edge, batch, seconds, mode):
    import if_unet
    with open(path) as f:
        config = json.load(f)
    torch.manual_seed(1)
    net = if_unet.build(config, DEVICE, DTYPE)
    sample = torch.randn(batch, config["in_channels"], edge, edge, device=DEVICE, dtype=DTYPE)
    timestep = torch.full((batch,), 500, device=DEVICE)
    text = torch.randn(batch, 77, config["encoder_hid_dim"], device=DEVICE, dtype=DTYPE)
    level = torch.full((batch,), 250, device=DEVICE) if config["class_embed_type"] else None
    if GPU:
        net = net.to(memory_format=torch.channels_last)
        sample = sample.contiguous(memory_format=torch.channels_last)
    parameters = sum(p.numel() for p in net.parameters())
    if mode == "compiled":
        if not hasattr(torch, "compile"):
            show(unet=mode, skipped=f"PyTorch {torch.__version__} has no torch.compile")
            return
        net = torch.compile(net, mode="max-autotune-no-cudagraphs" if os.environ.get("AUTOTUNE") else "default")
    with torch.inference_mode():
        at = time.perf_counter()
        net(sample, timestep, text, level)
        wait()
        first = time.perf_counter() - at
        show(unet=mode, parameters=parameters, first=first)
        show(unet=mode, parameters=parameters, first=first, edge=edge, batch=batch,
             dtype=str(DTYPE).split(".")[1], seconds=median(lambda: net(sample, timestep, text, level), seconds))


def main():
    what, args = sys.argv[1], sys.argv[2:]
    if what == "facts":
        facts()
    elif what == "ceilings":
        ceilings(float(args[0]))
    elif what == "ops":
        ops(args[0], float(args[1]))
    else:
        unet(args[0], int(args[1]), int(args[2]), float(args[3]), args[4])


if __name__ == "__main__":
    main()
