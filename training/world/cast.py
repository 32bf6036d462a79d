"""The nouns that a world is played with: what sampling and captions need to know of an atlas.

A cast has numbers for its nouns, 0 and up, as the atlas does. Everything here is plain Python, so that
scenes can be made without pixels.
"""


from atlas.nouns import SIZES

# Nouns of these categories are shown in these places more often than elsewhere.
AT_HOME = {
    "sea animals": {"sea": 4, "underwater": 8, "beach": 2}, "vehicles": {"road": 4, "city": 3},
    "furniture": {"room": 6}, "household": {"room": 3, "kitchen": 4}, "food": {"kitchen": 4, "table": 3},
    "fruit and vegetables": {"kitchen": 4, "table": 3}, "plants": {"grass": 2, "forest": 2, "room": 1.5},
    "animals": {"grass": 2, "forest": 2}, "birds": {"grass": 2, "forest": 1.5, "sea": 1.5},
    "insects": {"grass": 3, "forest": 2}, "buildings": {"grass": 2, "city": 3, "snow": 1.5},
    "people": {"city": 2, "beach": 2, "room": 1.5, "grass": 1.5}, "office": {"table": 3, "room": 3},
    "tools": {"table": 2}, "music": {"room": 2.5}, "sports and toys": {"room": 2, "grass": 1.5},
}
# ids of nouns; what floats by its flag (w) need not be here
SEAGOING = {"anchor", "duck", "seal", "swan", "penguin", "canoe", "life-ring"}
SPACEFARING = {"rocket", "satellite", "ufo", "astronaut", "planet", "comet", "moon", "full-moon", "sun", "earth",
               "alien", "telescope", "robot"}


class Cast:
    """nouns: those of an atlas; variants[i]: the colour words (1..10) that noun i can be shown in;
    aspect[i]: width / height of its drawing."""

    def __init__(self, nouns, variants, aspect, shares=None, drawings=None):
        self.nouns, self.variants, self.aspect = list(nouns), variants, aspect
        self.shares = shares or [[1.]] * len(self.nouns)
        self.drawings = drawings        # [noun][drawing] -> the variants that it has
        self.number = {n.id: i for i, n in enumerate(self.nouns)}
        self.heights = [SIZES[n.size] for n in self.nouns]

    @staticmethod
    def of(atlas):
        count = len(atlas.nouns)
        index, aspect = atlas.drawings.cpu(), atlas.info[:, 7].cpu()
        own = [[v for v in range(1, index.shape[2]) if index[i, 0, v] >= 0] for i in range(count)]
        shares = [[float(s) for s in row] for row in atlas.shares]
        there = [[[v for v in range(index.shape[2]) if index[i, d, v] >= 0] for d in range(index.shape[1])]
                 for i in range(count)]
        return Cast(atlas.nouns, own, [float(aspect[index[i, 0, 0]]) for i in range(count)], shares, there)

    def drawing(self, rng, noun, variant):
        """One of a noun's drawings that exists in the variant."""
        shares = self.shares[noun]
        if len(shares) == 1 or self.drawings is None:
            return 0
        weights = [s * (variant in self.drawings[noun][d]) for d, s in enumerate(shares)]
        return rng.choices(range(len(shares)), weights)[0] if sum(weights) > 0 else 0

    def place_weights(self, noun, places):
        """How often each of the places is chosen for a noun: everywhere now and then, at home more often."""
        entry = self.nouns[noun]
        home = dict(AT_HOME.get(entry.category, {}))
        if "u" in entry.flags:
            home["underwater"] = 8
        if "w" in entry.flags or entry.id in SEAGOING:
            home["sea"] = 12
        if entry.id in SPACEFARING:
            home["space"] = 14
        return {p: w * home.get(p, 1.) for p, w in places.items()}


def of_names(rows, aspect=1.):
    """A cast without pictures, for tests: rows of vocabulary/nouns.tsv."""
    from atlas.nouns import Noun
    nouns = [Noun.from_row(r) for r in rows]
    colours = [[] if "n" in n.flags else list(range(1, 11)) for n in nouns]
    return Cast(nouns, colours, [aspect] * len(nouns))


def pick(rng, weights):
    names = list(weights)
    return rng.choices(names, [weights[n] for n in names])[0]


