"""What a super-resolution stage is given while it learns: exact low-res renders, renders made worse as
pictures of the stage below are, and pictures that the stages below drew themselves."""

import torch
import torch.nn.functional as F

import schedule


def upscale_window(low, low_origin, high_origin, size, low_res, high_res):
    """The window of the picture upscaled with align_corners=False. low: windows [N, 3, h, w]."""
    ratio, (h, w) = low_res / high_res, low.shape[2:]
    steps = torch.arange(size, device=low.device)
    axes = []
    for k, extent in ((0, w), (1, h)):
        place = (high_origin[:, k, None] + steps + .5) * ratio - .5 - low_origin[:, k, None]
        axes.append(place * 2 / (extent - 1) - 1)
    x, y = axes
    grid = torch.stack((x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)), -1)
    return F.grid_sample(low, grid, mode="bilinear", align_corners=True, padding_mode="border")


def _blur(images, sigma):
    """Gaussian blur, one sigma per picture."""
    offsets = torch.arange(-3, 4, device=images.device)
    kernel = torch.exp(-(offsets[None] / sigma.clamp(min=.05)[:, None]) ** 2 / 2)
    kernel = kernel / kernel.sum(1, keepdim=True)
    n, c, h, w = images.shape
    flat = F.pad(images.reshape(1, n * c, h, w), (3, 3, 3, 3), mode="replicate")
    taps = kernel.repeat_interleave(c, 0)
    flat = F.conv2d(flat, taps[:, None, :, None], groups=n * c)
    return F.conv2d(flat, taps[:, None, None, :], groups=n * c).view(n, c, h, w)


def _warp(images, pixels):
    """Moves pixels by a smooth random field of that strength, one per picture."""
    n, _, h, w = images.shape
    field = torch.randn(n, 2, h // 4 + 2, w // 4 + 2, device=images.device)
    field = F.interpolate(field, size=(h, w), mode="bicubic", align_corners=True)
    size = torch.tensor([w, h], device=images.device)
    moved = field.permute(0, 2, 3, 1) * pixels[:, None, None, None] * 2 / size
    straight = F.affine_grid(torch.eye(2, 3, device=images.device).expand(n, 2, 3), images.shape, align_corners=False)
    return F.grid_sample(images, straight + moved, mode="bilinear", align_corners=False, padding_mode="border")


def degrade(images, strength):
    """Wobbly outlines, blur and mottle of random strength, as drawn pictures have them; a third of the
    pictures stay exact."""
    n, dev = len(images), images.device
    touched = (torch.rand(n, device=dev) > .33).float()
    warped = _warp(images, torch.rand(n, device=dev) * .6 * strength * touched)
    blurred = _blur(warped, torch.rand(n, device=dev) * 1.1 * strength * touched)
    grain = _blur(torch.randn_like(images), .4 + torch.rand(n, device=dev))
    return blurred + grain * (touched * torch.rand(n, device=dev) * .06 * strength)[:, None, None, None]


class Below:
    """The stages below: they draw an exact 64 px picture again.

    The picture is noised half-way and drawn from there (SDEdit, Meng et al., 2022), so that it has the
    faults of a drawn picture and still lies on its exact render. The stages between draw in one step or
    several, smooth or with textures."""

    DEPTH, STEPS = (80, 420), 4        # timesteps at which drawing begins; how many steps it takes
    BETWEEN = (1, 4)                   # steps of the stages between

    def __init__(self, base, *upscalers):
        self.base, self.upscalers = base, upscalers

    @torch.no_grad()
    def redraw(self, exact, text):
        """exact: [N, 3, 64, 64] in -1..1 -> the same pictures as drawn, at the last stage's size."""
        n, dev = len(exact), exact.device
        depth = torch.randint(*self.DEPTH, (n,), device=dev)
        x = schedule.add_noise(exact, depth, torch.randn_like(exact))
        for step in range(self.STEPS):
            t = depth * (self.STEPS - step) // self.STEPS
            x0 = self.base(x, t, text).clamp(-1, 1)
            x = schedule.ddim_step(x, x0, t, depth * (self.STEPS - step - 1) // self.STEPS)
        x = x0
        for net in self.upscalers:
            size = net.config["sample_size"]
            low = F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
            level = torch.zeros(n, dtype=torch.long, device=dev)
            times = schedule.dpm_timesteps(self.BETWEEN[torch.randint(len(self.BETWEEN), ()).item()])
            x = schedule.dpm_2m(lambda x, t: net(torch.cat([x, low], 1), t, text, level),
                                torch.randn_like(low), times).clamp(-1, 1)
        return x
