"""The tokenizer's unigram model in plain Python, for a machine that has no sentencepiece: the likeliest way to
cut a word into pieces, by the pieces' scores."""

import json
import unicodedata

SPACE = "\u2581"
UNKNOWN, PENALTY = 2, 10.


def export(model, path):
    """Writes the pieces of a sentencepiece processor with their scores."""
    rows = [[model.IdToPiece(i), model.GetScore(i), bool(model.IsControl(i) or model.IsUnknown(i))]
            for i in range(model.GetPieceSize())]
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")


class Pieces:
    """As much of sentencepiece's processor as the tokenizer uses, for the world's captions."""

    def __init__(self, path):
        self.rows = json.loads(path.read_text(encoding="utf-8"))
        self.ids = {text: i for i, (text, _, special) in enumerate(self.rows) if not special}
        self.longest = max(map(len, self.ids))
        self.unknown = min(score for _, score, special in self.rows if not special) - PENALTY

    def GetPieceSize(self):
        return len(self.rows)

    def IdToPiece(self, i):
        return self.rows[i][0]

    def EncodeAsIds(self, text):
        words = unicodedata.normalize("NFKC", text).split()
        text = SPACE + SPACE.join(words) if words else ""
        best = [(0., 0, 0)] + [None] * len(text)        # score, where the last piece begins, its id
        for end in range(1, len(text) + 1):
            for start in range(max(0, end - self.longest), end):
                i = self.ids.get(text[start:end])
                score = self.rows[i][1] if i is not None else self.unknown if end - start == 1 else None
                if score is not None and (best[end] is None or best[start][0] + score > best[end][0]):
                    best[end] = (best[start][0] + score, start, UNKNOWN if i is None else i)
        out, end = [], len(text)
        while end > 0:
            out.append(best[end][2])
            end = best[end][1]
        merged = []         # several unknown letters in a row are one unknown piece
        for i in reversed(out):
            if i != UNKNOWN or not merged or merged[-1] != UNKNOWN:
                merged.append(i)
        return merged
