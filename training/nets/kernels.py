"""What trains faster on a CPU in C than with torch: 3x3 convolutions (winograd.c) and activations of norms (norm.c).
Both are compiled with the C compiler of the machine when a run starts."""

import ctypes
import functools
import hashlib
import os
import pathlib
import subprocess
import tempfile

import torch

SOURCES = [pathlib.Path(__file__).with_name(name) for name in ("winograd.c", "norm.c")]
HEADERS = [pathlib.Path(__file__).with_name("vectors.h")]
COMMAND = ["cc", "-O3", "-ffast-math", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]
LEAST, WIDER, ALL = ("-mavx2", "-mfma"), ("-mavx2", "-mfma", "-mavx512f"), ("-march=native",)   # used of the processor
POINTER, SIZE = ctypes.c_void_p, ctypes.c_ssize_t
FUNCTIONS = {
    "winograd_halves": [],
    "winograd_convolve": [POINTER] * 4 + [SIZE] * 5 + [ctypes.c_int],
    "winograd_weight_gradient": [POINTER] * 3 + [SIZE] * 5,
    "norm_silu": [POINTER] * 6 + [SIZE] * 4 + [ctypes.c_double],
    "norm_silu_gradient": [POINTER] * 9 + [SIZE] * 4,
}


def _features():
    """Names of what the processor can do."""
    cpu = pathlib.Path("/proc/cpuinfo")
    return sorted(set(cpu.read_text().split())) if cpu.exists() else []


def _compiled(machine):
    """The library, in the user's cache, under a name that changes with its sources and the processor."""
    made_of = repr((COMMAND, machine, [name for name in _features() if name.startswith(("avx", "fma"))])).encode()
    name = hashlib.sha256(b"".join(s.read_bytes() for s in SOURCES + HEADERS) + made_of).hexdigest()[:16]
    folder = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "imagend"
    library = folder / f"training-{name}.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            made = pathlib.Path(temporary) / "made.so"
            subprocess.run([*COMMAND, *machine, *map(str, SOURCES), "-o", str(made), "-lmvec", "-lm"], check=True)
            made.replace(library)       # two processes may do this at the same time
    library = ctypes.CDLL(str(library))
    for function, types in FUNCTIONS.items():
        getattr(library, function).argtypes = types
        getattr(library, function).restype = ctypes.c_int if function == "winograd_halves" else None
    return library


@functools.cache
def load(machine=ALL):
    """Kernels, or None without AVX2 or a compiler, or without what `machine` names."""
    named = {flag[2:] for flag in machine if flag.startswith("-mavx")}
    if not {"avx2", "fma", *named} <= set(_features()):
        return None
    try:
        return Kernels(_compiled(machine))
    except (OSError, subprocess.CalledProcessError):
        return None


class Kernels:
    def __init__(self, library):
        self.library = library
        self.halves = bool(library.winograd_halves())       # gradients of convolutions are computed in bfloat16

    def convolve(self, x, weight, bias):
        """F.conv2d(x, weight, bias, padding=1), for a convolution that `fits`."""
        return _Convolution.apply(self.library, x, weight, bias)

    def norm_silu(self, x, scale, shift, groups, eps):
        """SiLU of (x normalised per group) * scale + shift; scale, shift: [N, C]."""
        return _NormSilu.apply(self.library, x, scale, shift, groups, eps)


def fits(module, x):
    """Whether convolve computes what the nn.Conv2d does."""
    shape = module.kernel_size, module.stride, module.padding, module.dilation, module.groups
    return (shape == ((3, 3), (1, 1), (1, 1), (1, 1), 1) and module.padding_mode == "zeros" and x.dtype == torch.float32
            and not any(n % 4 for n in (*x.shape[2:], module.in_channels, module.out_channels)))


def _pointers(*tensors):
    return [None if t is None else t.data_ptr() for t in tensors]


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, library, x, weight, bias):
        x, weight = x.contiguous(), weight.contiguous()
        n, inputs, height, width = x.shape
        outputs = len(weight)
        y = x.new_empty(n, outputs, height, width)
        library.winograd_convolve(*_pointers(x, weight, bias, y), n, inputs, outputs, height, width, 0)
        ctx.library = library
        ctx.save_for_backward(x, weight)
        return y

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous()
        n, inputs, height, width = x.shape
        outputs = len(weight)
        dx = dw = None
        if ctx.needs_input_grad[1]:
            dx = torch.empty_like(x)
            ctx.library.winograd_convolve(*_pointers(gradient, weight, None, dx), n, outputs, inputs, height, width, 1)
        if ctx.needs_input_grad[2]:
            dw = torch.empty_like(weight)
            ctx.library.winograd_weight_gradient(*_pointers(x, gradient, dw), n, inputs, outputs, height, width)
        return None, dx, dw, gradient.sum((0, 2, 3)) if ctx.needs_input_grad[3] else None


class _NormSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, library, x, scale, shift, groups, eps):
        x, scale, shift = x.contiguous(), scale.contiguous(), shift.contiguous()
        n, channels, height, width = x.shape
        y, mean, inverse = torch.empty_like(x), x.new_empty(n, groups), x.new_empty(n, groups)
        ctx.library, ctx.sizes = library, (n, groups, channels // groups, height * width)
        library.norm_silu(*_pointers(x, scale, shift, y, mean, inverse), *ctx.sizes, eps)
        ctx.save_for_backward(x, scale, shift, mean, inverse)
        return y

    @staticmethod
    def backward(ctx, gradient):
        x, scale, shift, mean, inverse = ctx.saved_tensors
        dx, dscale, dshift = torch.empty_like(x), torch.empty_like(scale), torch.empty_like(shift)
        ctx.library.norm_silu_gradient(
            *_pointers(x, scale, shift, mean, inverse, gradient.contiguous(), dx, dscale, dshift), *ctx.sizes)
        return None, dx, dscale, dshift, None, None
