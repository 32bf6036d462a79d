"""What a run looks like while it trains: sheets of the same prompts and the share of nouns that the checker
recognises, cheap enough to draw by the way."""

import json
import pathlib

import torch

import schedule

PROMPTS = pathlib.Path(__file__).parent / "prompts_nouns.txt"


STEPS, GUIDANCE = 12, schedule.Guidance(3., 300, 700)


class Drawer:
    """Draws the same prompts from the same noise every time."""

    def __init__(self, opt, encoder, tok, prompts):
        self.prompts = prompts
        ids, mask = tok.encode(prompts + [""])
        with torch.no_grad():
            text = encoder(ids.to(opt.device), mask.to(opt.device))
        self.text, self.null = text[:-1], text[-1:]

    @torch.no_grad()
    def draw(self, net):
        generator, out = torch.Generator().manual_seed(0), []
        for text in self.text.split(16):
            noise = torch.randn(len(text), 3, 64, 64, generator=generator).to(text.device)
            out.append(schedule.dpm_2m(lambda x, t: GUIDANCE.x0(net, x, t, text, self.null), noise,
                                       schedule.dpm_timesteps(STEPS)))
        return torch.cat(out)


class Sheets:
    """Draws the prompts every so many samples into the run's folder; with a checker, one image of every few nouns
    too, and writes how many of them it recognises, in colour and in grey, as a line of scores.jsonl."""

    def __init__(self, opt, encoder, tok):
        self.out, self.every, self.next = opt.out, opt.sheet_every, 0
        self.sheet = Drawer(opt, encoder, tok, PROMPTS.read_text(encoding="utf-8").strip().split("\n"))
        self.judge = None
        if opt.judge:
            import checker
            from atlas import Atlas
            self.judge, _ = checker.load(opt.judge)
            nouns = [n for n in Atlas(opt.atlas, sides=()).nouns if not opt.waves or n.wave in opt.waves]
            self.nouns = ["noun:" + n.id for n in nouns[::opt.judge_every]]
            names = [n.names[0] for n in nouns[::opt.judge_every]]
            self.singles = Drawer(opt, encoder, tok, [(n.article + " " + n.singular).strip() for n in names])

    def score(self, net, seen):
        import checker
        found = checker.detect(self.judge, self.singles.draw(net).clamp(-1, 1).cpu())
        line = {"seen": seen, "nouns": len(self.nouns)}
        for name, kind in ("colour", "shape"), ("grey", "grey"):
            right = [any(o[kind] == noun for o in f["objects"]) for noun, f in zip(self.nouns, found)]
            line[name] = round(sum(right) / len(right), 3)
        with (self.out / "scores.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def __call__(self, net, seen):
        if not self.next:
            self.next = (seen // self.every + 1) * self.every
        if seen < self.next:
            return
        self.next = (seen // self.every + 1) * self.every
        import sheet        # needs Pillow, which a bare machine may not have
        images = sheet.to_bytes((self.sheet.draw(net) + 1) / 2)
        sheet.save(self.out / ("sheet_%07d.jpg" % seen), images, self.sheet.prompts, 10, 96)
        if self.judge:
            self.score(net, seen)
