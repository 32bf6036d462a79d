"""What a run looks like while it trains: sheets of the same prompts, cheap enough to draw by the way."""

import pathlib

import torch

import schedule

PROMPTS = pathlib.Path(__file__).parent / "prompts_nouns.txt"


class Sheets:
    """Draws the prompts every so many samples into the run's folder."""

    def __init__(self, opt, encoder, tok, steps=12, guidance=3.):
        self.out, self.every, self.next, self.steps = opt.out, opt.sheet_every, 0, steps
        self.prompts = PROMPTS.read_text(encoding="utf-8").strip().split("\n")
        self.guidance = schedule.Guidance(guidance, 300, 700)
        ids, mask = tok.encode(self.prompts + [""])
        with torch.no_grad():
            text = encoder(ids.to(opt.device), mask.to(opt.device))
        self.text, self.null = text[:-1], text[-1:]

    @torch.no_grad()
    def draw(self, net):
        generator, out = torch.Generator().manual_seed(0), []
        for text in self.text.split(16):
            noise = torch.randn(len(text), 3, 64, 64, generator=generator).to(text.device)
            out.append(schedule.dpm_2m(lambda x, t: self.guidance.x0(net, x, t, text, self.null), noise,
                                       schedule.dpm_timesteps(self.steps)))
        return torch.cat(out)

    def __call__(self, net, seen):
        if not self.next:
            self.next = (seen // self.every + 1) * self.every
        if seen < self.next:
            return
        self.next = (seen // self.every + 1) * self.every
        import sheet        # needs Pillow, which a bare machine may not have
        pictures = sheet.to_bytes((self.draw(net) + 1) / 2)
        sheet.save(self.out / ("sheet_%07d.jpg" % seen), pictures, self.prompts, 10, 96)
