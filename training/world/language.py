"""The words of the world: what exists, what it is called, and what it looks like by number.

Everything else (scene sampling, captions, rendering, checking) indexes into these lists, so their
order is part of the data format: append, never reorder.
"""

COLOURS = {
    "red": (.88, .09, .09), "orange": (.98, .50, .06), "yellow": (.99, .87, .10),
    "green": (.12, .62, .18), "cyan": (.10, .78, .82), "blue": (.10, .26, .88),
    "purple": (.52, .15, .72), "pink": (.98, .50, .70), "white": (.95, .95, .95),
    "black": (.08, .08, .10),
}
COLOUR_NAMES = list(COLOURS)

SHAPES = ["sphere", "cube", "cylinder", "cone", "pyramid", "ring", "star", "heart", "tree", "house",
          "mushroom"]
SOLIDS = SHAPES[:8]            # shapes that take a pattern and may float in the air
PATTERNS = ["plain", "striped", "dotted", "checkered", "metallic", "glass"]
SIZES = [None, "small", "large"]

SHAPE_WORDS = {
    "sphere": ["sphere", "ball"], "cube": ["cube", "box"], "ring": ["ring", "torus"],
    "house": ["house", "house", "cottage"], "mushroom": ["mushroom", "toadstool"],
}
PLURALS = {"box": "boxes", "torus": "tori"}
COLOUR_WORDS = {"purple": ["purple", "purple", "violet"], "cyan": ["cyan", "cyan", "turquoise"]}
PATTERN_WORDS = {
    "striped": ["striped"], "dotted": ["dotted", "spotted"], "checkered": ["checkered", "chequered"],
    "metallic": ["metallic", "metal", "shiny metal"], "glass": ["glass", "transparent"],
}
SIZE_WORDS = {"small": ["small", "small", "tiny", "little"], "large": ["large", "large", "big", "huge"]}
NUMBERS = {1: ["a"], 2: ["two", "2", "a pair of"], 3: ["three", "3"], 4: ["four", "4"],
           5: ["five", "5"]}

GROUNDS = ["table", "grass", "beach", "snow", "tiles", "plain", "sea", "road", "forest", "city", "room",
           "kitchen", "space", "underwater"]
OUTDOORS = {"grass", "beach", "snow", "sea", "road", "forest", "city"}
TIMELESS = {"tiles", "plain", "room", "kitchen", "space", "underwater"}      # always lit as by day
AFLOAT = {"space", "underwater"}                                # where everything may float
TIMES = ["day", "sunset", "night"]
BACKDROPS = {"white": (.93, .93, .92), "gray": (.55, .56, .58), "black": (.08, .08, .09),
             "blue": (.35, .55, .85), "pink": (.95, .72, .78)}

GROUND_WORDS = {
    "table": ["on a wooden table", "on a table", "on a wooden desk", "on a wooden floor"],
    "grass": ["on green grass", "in a meadow", "on the grass", "in a field", "on a lawn"],
    "beach": ["on a sandy beach", "on the beach", "on the beach by the sea", "by the sea", "on sand"],
    "snow": ["in the snow", "on snow", "in a snowy landscape", "in winter"],
    "tiles": ["on a tiled floor", "on a checkerboard floor", "on tiles"],
    "sea": ["on the sea", "on the water", "in the sea", "on the ocean", "floating on the water", "on a lake",
            "in the water"],
    "road": ["on the road", "on a road", "on the highway", "in the middle of the road"],
    "forest": ["in the forest", "in a forest", "in the woods", "among trees", "in the jungle"],
    "city": ["in the city", "on the street", "in a city street", "in town", "on a street in the city"],
    "room": ["in a room", "in a living room", "in the living room", "at home", "indoors", "on a carpet",
             "in a bedroom"],
    "kitchen": ["in the kitchen", "on the kitchen table", "on a kitchen counter", "in a kitchen"],
    "space": ["in space", "in outer space", "among the stars", "in the galaxy", "floating in space"],
    "underwater": ["under water", "underwater", "at the bottom of the sea", "under the sea",
                   "in an aquarium"],
}
TIME_WORDS = {
    "day": ["on a sunny day", "in daylight", "during the day", "under a blue sky"],
    "sunset": ["at sunset", "at sunset", "in the evening", "at dusk"],
    "night": ["at night", "at night", "under the moon", "under the stars"],
}
EMPTY_WORDS = {
    "table": ["a wooden table", "an empty table"],
    "grass": ["a meadow", "a green field", "grass and hills", "green hills", "a landscape"],
    "beach": ["a beach", "a sandy beach", "the sea", "the ocean", "a beach by the sea"],
    "snow": ["snow", "snowy mountains", "a snowy landscape", "mountains", "winter"],
    "tiles": ["a tiled floor", "an empty room with a tiled floor"],
    "sea": ["the open sea", "the open ocean", "waves", "water", "a lake"],
    "road": ["a road", "an empty road", "a highway"],
    "forest": ["a forest", "the woods", "a jungle"],
    "city": ["a city", "a skyline", "an empty street", "a city street"],
    "room": ["an empty room", "a living room", "a room"],
    "kitchen": ["a kitchen", "an empty kitchen table"],
    "space": ["space", "outer space", "the starry sky", "a galaxy"],
    "underwater": ["the bottom of the sea", "an underwater landscape", "an empty aquarium"],
}
WEATHERS = [None, "rain", "snowfall", "fog", "rainbow"]
WEATHER_WORDS = {
    "rain": ["in the rain", "in the rain", "on a rainy day", "when it rains", "with rain"],
    "snowfall": ["with falling snow", "while it is snowing", "in a snowstorm", "in snowfall"],
    "fog": ["in the fog", "in fog", "on a foggy day", "in the mist"],
    "rainbow": ["with a rainbow", "under a rainbow", "and a rainbow"],
}
# where and when a weather is shown
WEATHER_GROUNDS = {
    "rain": {"grass", "sea", "road", "forest", "city"}, "snowfall": {"snow", "forest", "road", "city"},
    "fog": {"grass", "sea", "road", "forest", "city"}, "rainbow": {"grass", "beach", "sea", "road"},
}
PRAISE = ["cute", "nice", "beautiful", "pretty"]
OPENINGS = ["a picture of", "a photo of", "an image of", "a painting of", "there is"]

LAYOUTS = ["empty", "single", "count", "count above", "left", "right", "above", "on top", "front",
           "behind", "next", "between", "list"]
RELATION_WORDS = {
    "left": ["to the left of", "left of", "on the left of"],
    "right": ["to the right of", "right of", "on the right of"],
    "above": ["above", "over", "floating above"],
    "below": ["below", "under", "underneath"],
    "on top": ["on top of", "on", "standing on"],
    "front": ["in front of"],
    "behind": ["behind"],
    "next": ["next to", "beside", "and"],
}
