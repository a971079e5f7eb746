"""Words: the tokenizer (CLIP's byte pairs, first merges only) and the phrases that name colours and shapes."""

import json
import pathlib

import torch
import torch.nn.functional as F
from transformers import CLIPTokenizer

MERGES = pathlib.Path(__file__).resolve().parents[2] / "assets" / "clip" / "merges.txt"

# Colour: ranges of hue in degrees, saturation, value. Apart enough that shading and noise do not cross a border.
COLOURS = {
    "red": ((-10, 8), (0.75, 1.0), (0.6, 0.95)),
    "orange": ((22, 35), (0.8, 1.0), (0.88, 1.0)),
    "yellow": ((48, 60), (0.7, 1.0), (0.85, 1.0)),
    "green": ((95, 145), (0.5, 1.0), (0.4, 0.85)),
    "cyan": ((174, 190), (0.6, 1.0), (0.75, 1.0)),
    "blue": ((212, 240), (0.65, 1.0), (0.5, 0.95)),
    "purple": ((268, 290), (0.5, 0.9), (0.45, 0.8)),
    "pink": ((320, 345), (0.3, 0.6), (0.9, 1.0)),
    "brown": ((18, 30), (0.55, 0.8), (0.3, 0.5)),
    "black": ((0, 360), (0.0, 0.3), (0.0, 0.14)),
    "gray": ((0, 360), (0.0, 0.08), (0.4, 0.65)),
    "white": ((0, 360), (0.0, 0.06), (0.92, 1.0)),
}
SHAPES = (
    "circle",
    "square",
    "rectangle",
    "triangle",
    "star",
    "pentagon",
    "hexagon",
    "heart",
    "cross",
    "ring",
    "crescent",
)
# Other words for the same; the first is the name used when one is asked for.
COLOUR_WORDS = {"gray": ("gray", "grey"), "purple": ("purple", "violet"), "cyan": ("cyan", "turquoise")}
SHAPE_WORDS = {"cross": ("cross", "plus"), "crescent": ("crescent", "moon"), "circle": ("circle", "disc")}
ANYTHING = ("{} shape", "{} thing", "anything {}", "{} object", "something {}", "{}")


def make_tokenizer(merges, directory=None):
    """CLIP's tokenizer cut to its first `merges` merges; written to `directory`/tokenizer.json if one is given."""
    lines = MERGES.read_text(encoding="utf-8").splitlines()[:merges]
    pairs = [tuple(line.split(" ")) for line in lines]
    if len(pairs) != merges or any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"{MERGES} does not hold {merges} merges of two parts")
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    words = alphabet + [c + "</w>" for c in alphabet] + ["".join(pair) for pair in pairs]
    words += ["<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=pairs)
    if directory is not None:
        tokenizer.backend_tokenizer.save(str(directory / "tokenizer.json"))
        loaded = CLIPTokenizer.from_pretrained(directory)
        assert loaded.eos_token_id == len(words) - 1
        assert loaded("Red  circle").input_ids == tokenizer("red circle").input_ids
        return loaded
    return tokenizer


class Phrases:
    """Every phrase with its tokens and what it means: a shape (or -1), a colour (or -1), a set of drawn things.

    Row order: plain shapes, plain colours, plain pairs (colour major), other wordings of each of these (up to
    `named`), words for drawn things (up to `things`), then words that never name anything in a picture.
    `facts` are those of `atlas.unpack`; a thing is a label of theirs, in the order of `self.labels`.
    """

    def __init__(self, preset, facts=(), strangers=400):
        self.tokenizer = make_tokenizer(preset.merges)
        shapes, colours = list(SHAPES), list(COLOURS)
        self.rows = [(s, i, -1) for i, s in enumerate(shapes)]
        self.rows += [(f"{c} shape", -1, j) for j, c in enumerate(colours)]
        self.rows += [(f"{c} {s}", i, j) for j, c in enumerate(colours) for i, s in enumerate(shapes)]
        self.plain = len(self.rows)
        for text, i, j in self._wordings():
            self.rows.append((text, i, j))
        self.named = len(self.rows)
        self.labels = sorted({fact["label"] for fact in facts})
        words = {}
        for fact in facts:
            for word in fact["words"]:
                words.setdefault(word, set()).add(self.labels.index(fact["label"]))
        self.rows += [(text, -1, -1) for text in words]
        self.things = len(self.rows)
        self.rows += [(text, -1, -1) for text in self._strangers(strangers)]
        texts = [text for text, _, _ in self.rows]
        self.ids, self.mask = encode(self.tokenizer, texts)
        # Upstream's processor puts this word in where exemplar boxes come without a phrase.
        visual, visual_mask = encode(self.tokenizer, ["visual"])
        spare = self.ids.shape[1] - visual.shape[1]
        self.visual = torch.stack(
            [F.pad(visual[0], (0, spare), value=self.tokenizer.eos_token_id), F.pad(visual_mask[0], (0, spare))]
        )
        self.shape = torch.tensor([i for _, i, _ in self.rows])
        self.colour = torch.tensor([j for _, _, j in self.rows])
        self.members = torch.zeros(len(self.rows), max(len(self.labels), 1), dtype=torch.bool)
        for row, found in zip(range(self.named, self.things), words.values()):
            self.members[row, list(found)] = True
        # Rows that name each thing, for random choice: its own name about half of the time, then synonyms and groups.
        width = 8
        choices = []
        for i, label in enumerate(self.labels):
            rows = [row for row in range(self.named, self.things) if self.members[row, i]]
            own = next(row for row in rows if self.rows[row][0] == label)
            others = [row for row in rows if row != own][: width // 2]
            choices.append([own] * (width - len(others)) + others)
        self.names = torch.tensor(choices or [[0] * width])
        self._by_meaning = {}
        for k, (_, i, j) in enumerate(self.rows[: self.named]):
            self._by_meaning.setdefault((i, j), []).append(k)
        # Wordings per meaning, padded by repetition, so that a random column is a random wording.
        most = max(map(len, self._by_meaning.values()))
        table = torch.zeros(len(shapes) + 1, len(colours) + 1, most, dtype=torch.long)
        for (i, j), found in self._by_meaning.items():
            table[i, j] = torch.tensor([found[n % len(found)] for n in range(most)])
        self.table = table  # [shape or -1, colour or -1, wording]

    def _wordings(self):
        for i, shape in enumerate(SHAPES):
            words = SHAPE_WORDS.get(shape, (shape,))
            for word in words:
                for form in ("{}", "a {}", "the {}", "{}s"):
                    text = _plural(word) if form == "{}s" else form.format(word)
                    if text != shape:
                        yield text, i, -1
            for j, colour in enumerate(COLOURS):
                for tint in COLOUR_WORDS.get(colour, (colour,)):
                    for word in words:
                        for text in (
                            f"{tint} {word}",
                            f"a {tint} {word}",
                            f"the {tint} {word}",
                            f"{tint} {_plural(word)}",
                        ):
                            if text != f"{colour} {shape}":
                                yield text, i, j
        for j, colour in enumerate(COLOURS):
            for tint in COLOUR_WORDS.get(colour, (colour,)):
                for form in ANYTHING:
                    if form.format(tint) != f"{colour} shape":
                        yield form.format(tint), -1, j

    def _strangers(self, count):
        """Whole words of the vocabulary that name no colour or shape, alone or behind a colour."""
        known = {w for text, _, _ in self.rows for w in text.split()}
        vocabulary = json.loads(self.tokenizer.backend_tokenizer.to_str())["model"]["vocab"]
        whole = [w[:-4] for w in sorted(vocabulary, key=vocabulary.get) if w.endswith("</w>") and w[:-4].isalpha()]
        whole = [w for w in whole if w.isascii() and len(w) > 2 and w not in known]
        choice = torch.randperm(len(whole), generator=torch.Generator().manual_seed(7))[:count].tolist()
        colours = list(COLOURS)
        return [f"{colours[k % len(colours)]} {whole[i]}" if k % 3 == 0 else whole[i] for k, i in enumerate(choice)]

    def to(self, device):
        for name in ("ids", "mask", "shape", "colour", "table", "visual", "members", "names"):
            setattr(self, name, getattr(self, name).to(device))
        return self


def _plural(word):
    return word + "es" if word.endswith(("s", "x")) else word + "s"


def encode(tokenizer, texts):
    """Token ids and attention mask, [n, longest], padded with the end mark as CLIP does."""
    rows = [tokenizer(text).input_ids for text in texts]
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), tokenizer.eos_token_id, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for k, row in enumerate(rows):
        ids[k, : len(row)] = torch.tensor(row)
        mask[k, : len(row)] = 1
    return ids, mask
