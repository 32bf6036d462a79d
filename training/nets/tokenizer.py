"""SentencePiece tokenizer with T5's special ids, and its training on the world's captions."""

import io

import torch

from . import pieces

try:
    import sentencepiece
except ImportError:         # on a bare machine, which has the pieces alone; see pieces.py
    sentencepiece = None

LENGTH = 64        # token positions that every new network sees; model_max_length of the export


def train(captions, path, vocab_size=8000):
    """Writes a unigram model in which every letter has a piece, so any word can be spelled."""
    model = io.BytesIO()
    letters = ["abcdefghijklmnopqrstuvwxyz"[i:] for i in range(26)] + list("0123456789.,!?'\"-:;()&")
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(list(captions) + letters * 20), model_writer=model, vocab_size=vocab_size,
        model_type="unigram", character_coverage=1.0, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
        pad_piece="<pad>", eos_piece="</s>", unk_piece="<unk>", hard_vocab_limit=False,
        normalization_rule_name="nmt_nfkc", num_threads=1, minloglevel=2)
    with open(path, "wb") as f:
        f.write(model.getvalue())


class Tokenizer:
    def __init__(self, path, length=LENGTH):
        self.length = length
        if sentencepiece and path.exists():
            self.model = sentencepiece.SentencePieceProcessor()
            self.model.Load(str(path))
        else:
            self.model = pieces.Pieces(path.with_name("pieces.json"))
        self.texts = [self.model.IdToPiece(i).replace("\u2581", " ") for i in range(len(self))]
        self.words = {}

    def __len__(self):
        return self.model.GetPieceSize()

    def pieces(self, word):
        """Ids of one word. Pieces never span a space, so a sentence is its words' pieces."""
        if word not in self.words:
            self.words[word] = self.model.EncodeAsIds(word)
        return self.words[word]

    def unspaced(self, words, groups):
        """(ids, groups) of a language that joins its words: a piece belongs to the word of its last letter."""
        ids, of_letter = self.model.EncodeAsIds("".join(words)), [0]
        for word, group in zip(words, groups):
            of_letter += [group] * len(word)
        tags, at = [], 0
        for i in ids:
            at = min(at + len(self.texts[i]), len(of_letter))
            tags.append(of_letter[at - 1])
        return ids, tags

    def encode_words(self, words, groups, spaced=True):
        """(ids, groups) of a tagged caption, cut and closed with </s>, padded."""
        ids, tags = [], []
        if not spaced:
            ids, tags = self.unspaced(words, groups)
        for word, group in zip(words, groups) if spaced else ():
            piece = self.pieces(word)
            ids += piece
            tags += [group] * len(piece)
        ids, tags = ids[:self.length - 1] + [1], tags[:self.length - 1] + [0]
        pad = self.length - len(ids)
        return ids + [0] * pad, tags + [0] * pad

    def encode(self, prompts):
        """Prompts -> (ids, mask), both [N, length], as the engine does it."""
        rows = []
        for prompt in prompts:
            ids = self.model.EncodeAsIds(prompt.lower().strip())[:self.length - 1] + [1]
            rows.append(ids + [0] * (self.length - len(ids)))
        ids = torch.tensor(rows)
        return ids, (ids != 0).long()
