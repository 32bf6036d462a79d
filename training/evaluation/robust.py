"""What odd prompts give: always some picture of this world.

`clear` is the share of pictures in which the checker is certain of the ground and finds no object that
it cannot name: what looks like nothing in this world is seldom clear.
"""

from sheet import to_bytes
from world import scene as worlds
from world.render import render

PROMPTS = [
    ("empty", ""), ("spaces", "   "), ("one letter", "a"), ("digits", "1234567890"),
    ("punctuation", "?!... -- ;;"), ("unknown words", "zyxwvu quarks of the blorf"),
    ("another subject", "an astronaut riding a horse through downtown"),
    ("a known part", "a red quark dancing on the beach at sunset"),
    ("misspelt", "a rde bal on teh beech"), ("run together", "redballonthebeach"),
    ("capitals", "A RED BALL ON THE BEACH"), ("contradiction", "a red blue ball"),
    ("against the world", "a black snow under a green sky"), ("too many", "nineteen pink hearts on a table"),
    ("French", "une sphère rouge sur la plage"), ("German", "ein roter Würfel auf dem grünen Gras"),
    ("Chinese", "草地上的红色球体"), ("Arabic", "كرة حمراء على الشاطئ"), ("emoji", "🔴 🏠 🌙"),
    ("markup", "<b>a blue cube</b> {in} [the] (snow:1.3)"), ("one word often", "red " * 40),
    ("more than 77 tokens", "a blue cube in the snow, next to a yellow star, " * 8),
    ("31,200 bytes", "a blue cube in the snow " * 1300)]
SEEDS = 3


def shown(seen):
    objects = ", ".join("%s %s" % (f["colour"], f["shape"]) for f in seen["objects"]) or "no object"
    return "%s; %s, %s" % (objects, seen["ground"], seen["time"])


def clear(seen):
    return float(seen["certainty"] > .9 and all(f["certainty"] > .5 for f in seen["objects"]))


def share_clear(seen):
    return sum(map(clear, seen)) / len(seen)


def run(context):
    pictures = context.engine.draw([p for _, p in PROMPTS for _ in range(SEEDS)], context.seed)
    seen = context.see(pictures)
    scenes = [worlds.sample(context.seed + i, context.mix, None, None) for i in range(len(seen))]
    ordinary = context.see(context.engine.draw([s.caption for s in scenes], context.seed))
    exact = context.see(to_bytes(render(scenes, 64)))
    context.add_to_sheet("robust", pictures, [p[:60] for _, p in PROMPTS for _ in range(SEEDS)], len(pictures))
    results = {"clear": {"odd prompts": share_clear(seen), "ordinary prompts": share_clear(ordinary),
                         "exact renders": share_clear(exact)}, "prompts": []}
    lines = ["| kind | prompt | what the checker sees, %d seeds |" % SEEDS, "|---|---|---|"]
    for i, (kind, prompt) in enumerate(PROMPTS):
        what = [shown(d) for d in seen[i * SEEDS:(i + 1) * SEEDS]]
        results["prompts"].append({"kind": kind, "prompt": prompt[:80], "seen": what})
        code = "`%s`" % prompt[:50].strip() if prompt.strip() else ""
        lines.append("| %s | %s | %s |" % (kind, code, " · ".join(what)))
    lines += ["", "| %d pictures of | clear |" % len(seen), "|---|---|"]
    lines += ["| %s | %.2f |" % row for row in results["clear"].items()]
    return results, lines
