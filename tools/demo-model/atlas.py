"""Named drawings from openly licensed emoji sets, packed into one file: `python atlas.py atlas.npz`.

Fetches npm packages by name and version, rasterises every concrete thing in every style that has it, and packs the
cut-out tiles (SIDE x SIDE RGBA, WebP) with their names. About 860 names, 4,700 drawings, 16 MB. Needs `npm` and
`pip install resvg_py`. Licences are listed in README.md; sets that ask for share-alike are left out.
"""

import io
import json
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile

import numpy as np
from PIL import Image

from vocabulary import SHAPE_WORDS, SHAPES

SIDE = 112
NAMES = ("emojibase-data", "17.0.0")
STYLES = {  # style: (package, version)
    "noto": ("@iconify-json/noto", "1.2.9"),
    "noto-v1": ("@iconify-json/noto-v1", "1.2.5"),
    "fluent-flat": ("@iconify-json/fluent-emoji-flat", "1.2.6"),
    "fluent": ("@iconify-json/fluent-emoji", "1.2.7"),
    "emojione": ("@iconify-json/emojione", "1.2.3"),
    "twemoji": ("@iconify-json/twemoji", "1.2.5"),
}
HELD_OUT_STYLE = "twemoji"  # never trained on: shows whether names or drawings were learned
# Subgroups that are signs, faces, people or hands: nothing one would point at by name in a picture.
ABSTRACT = (
    "flag",
    "keycap",
    "arrow",
    "zodiac",
    "alphanum",
    "av-symbol",
    "punctuation",
    "math",
    "currency",
    "family",
    "person",
    "hand",
    "face",
    "gender",
    "religion",
    "transport-sign",
    "warning",
    "other-symbol",
    "emotion",
    "skin-tone",
    "hair",
)
# What people say for a name of the standard; the name itself stays usable.
SYNONYMS = {
    "automobile": ["car"],
    "bicycle": ["bike"],
    "airplane": ["plane"],
    "hamburger": ["burger"],
    "doughnut": ["donut"],
    "red apple": ["apple"],
    "deciduous tree": ["tree"],
    "evergreen tree": ["tree", "pine tree"],
    "tropical fish": ["fish"],
    "birthday cake": ["cake"],
    "light bulb": ["lamp"],
    "alarm clock": ["clock"],
    "soccer ball": ["ball", "football"],
    "basketball": ["ball"],
    "oncoming bus": ["bus"],
    "locomotive": ["train"],
    "delivery truck": ["truck"],
    "police car": ["car"],
    "taxi": ["car"],
    "sport utility vehicle": ["car"],
    "sailboat": ["boat"],
}
GROUPS = {  # a word for all of several subgroups
    "animal": ("animal-mammal", "animal-bird", "animal-reptile", "animal-amphibian", "animal-marine", "animal-bug"),
    "bird": ("animal-bird",),
    "insect": ("animal-bug",),
    "fruit": ("food-fruit",),
    "vegetable": ("food-vegetable",),
    "food": ("food-fruit", "food-vegetable", "food-prepared", "food-asian", "food-sweet"),
    "drink": ("drink",),
    "vehicle": ("transport-ground", "transport-air", "transport-water"),
    "flower": ("plant-flower",),
    "building": ("place-building",),
    "clothing": ("clothing",),
    "tool": ("tool",),
    "musical instrument": ("musical-instrument",),
}


def fetch(package, version, directory):
    """Members of a registry package, unpacked under `directory`."""
    packed = subprocess.run(
        ["npm", "pack", f"{package}@{version}", "--silent"], cwd=directory, check=True, capture_output=True, text=True
    ).stdout.split()[-1]
    target = pathlib.Path(directory) / packed.removesuffix(".tgz")
    with tarfile.open(pathlib.Path(directory) / packed) as archive:
        archive.extractall(target, filter="data")
    return target / "package"


def drawing(icons, slug):
    """The SVG of an icon in an iconify set, through its aliases; None if the set lacks it."""
    icon = icons["icons"].get(slug) or icons["icons"].get(icons.get("aliases", {}).get(slug, {}).get("parent"))
    if icon is None:
        return None
    width, height = icon.get("width", icons.get("width", 16)), icon.get("height", icons.get("height", 16))
    left, top = icon.get("left", icons.get("left", 0)), icon.get("top", icons.get("top", 0))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{width}" '
        f'height="{height}" viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>'
    )


def tile(svg):
    """Rasterised, cut to what is drawn, centred in a square; None if nothing is."""
    import resvg_py  # only who makes the drawings needs it

    png = resvg_py.svg_to_bytes(svg_string=svg, width=SIDE, height=SIDE)
    picture = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    box = picture.getchannel("A").point(lambda v: 255 if v > 24 else 0).getbbox()
    if box is None:
        return None
    picture = picture.crop(box)
    scale = SIDE / max(picture.size)
    picture = picture.resize([max(1, round(v * scale)) for v in picture.size], Image.LANCZOS)
    square = Image.new("RGBA", (SIDE, SIDE))
    square.paste(picture, ((SIDE - picture.width) // 2, (SIDE - picture.height) // 2))
    return square


def slug_of(label):
    return re.sub(r"[^a-z0-9]+", "-", label.lower().replace("’", "").replace("ñ", "n")).strip("-")


def words_of(label, subgroup):
    """Every phrase that means this thing: its name, synonyms, its groups."""
    return [label, *SYNONYMS.get(label, []), *(word for word, subs in GROUPS.items() if subgroup in subs)]


def clashes(label):
    """Whether a name speaks of a shape, like "red heart" or "star": such words mean the plain shapes here."""
    shapes = {word for shape in SHAPES for word in SHAPE_WORDS.get(shape, (shape,))}
    return bool(shapes & set(re.findall("[a-z]+", label)))


def build(target):
    with tempfile.TemporaryDirectory() as scratch:
        sets = {
            style: json.loads((fetch(*package, scratch) / "icons.json").read_text())
            for style, package in STYLES.items()
        }
        names = fetch(*NAMES, scratch)
        entries = json.loads((names / "en" / "data.json").read_text())
        subgroups = json.loads((names / "meta" / "groups.json").read_text())["subgroups"]
        packed, facts = [], []
        for entry in entries:
            subgroup = subgroups.get(str(entry.get("subgroup", -1)), "")
            if not subgroup or any(word in subgroup for word in ABSTRACT):
                continue
            label = entry["label"].lower()
            if clashes(label):
                continue
            for style, icons in sets.items():
                svg = drawing(icons, slug_of(label))
                picture = svg and tile(svg)
                if picture:
                    buffer = io.BytesIO()
                    picture.save(buffer, "WEBP", quality=88, method=4)
                    packed.append(buffer.getvalue())
                    facts.append(dict(label=label, style=style, words=words_of(label, subgroup)))
    offsets = np.cumsum([0] + [len(p) for p in packed])
    np.savez(target, data=np.frombuffer(b"".join(packed), np.uint8), offsets=offsets, facts=json.dumps(facts))
    counts = {style: sum(f["style"] == style for f in facts) for style in STYLES}
    print(f"{len({f['label'] for f in facts})} names, {len(facts)} drawings, {offsets[-1] / 1e6:.1f} MB: {counts}")


def styles(only=None):
    """The styles trained on, or just the one asked for."""
    return [only] if only else [style for style in STYLES if style != HELD_OUT_STYLE]


def unpack(path, side, wanted):
    """RGBA tiles [n, 4, side, side] in bytes, the thing each shows [n] (index into the sorted labels of the whole
    file, whatever the styles) and the facts of the whole file, which make the phrases."""
    stored = np.load(path)
    facts, offsets, data = json.loads(str(stored["facts"])), stored["offsets"], stored["data"].tobytes()
    keep = [i for i, fact in enumerate(facts) if fact["style"] in wanted]
    labels = {label: i for i, label in enumerate(sorted({fact["label"] for fact in facts}))}
    tiles = np.empty((len(keep), side, side, 4), np.uint8)
    for k, i in enumerate(keep):
        picture = Image.open(io.BytesIO(data[offsets[i] : offsets[i + 1]])).convert("RGBA")
        tiles[k] = np.asarray(picture.resize((side, side), Image.BILINEAR))
    shows = np.array([labels[facts[i]["label"]] for i in keep])
    return np.ascontiguousarray(tiles.transpose(0, 3, 1, 2)), shows, facts


if __name__ == "__main__":
    build(pathlib.Path(sys.argv[1]))
