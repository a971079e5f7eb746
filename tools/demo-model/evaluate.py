"""The bars, measured on held-out pictures (`heldout.py`) by any of three answerers (`answerers.py`), side by side.

    python evaluate.py --by training --checkpoint RUN/find-192.pt
    python evaluate.py --by transformers engine --exported ../../assets/demo --program ../../target/release/sam3

Everybody is asked the same. The clicks of later rounds depend on the masks before, by the same rule for all: the
deepest point of the largest error, as users correct. A lone click is answered with the best rated of three masks, as
the SAM papers do; all else with one mask. Under the tables stands how far the answerers are apart (`Agreement`).
"""

import argparse
import dataclasses
import itertools
import json
import pathlib
import time

import numpy as np
import torch
import torch.nn.functional as F

import sheet
from answerers import Engine, Found, Shown, Training, Transformers
from atlas import HELD_OUT_STYLE, styles, unpack
from config import PRESETS
from heldout import GROUPS, Spec, cases, deepest
from tally import Score, overlaps, table, weak_spots
from vocabulary import Phrases

ROUNDS = 3


@dataclasses.dataclass
class Answers:
    """What one answerer said of one picture: `Found` per question; per kind of prompt (rating, mask [H, W], logits
    [M, M]) of each target; the clicks of each target's last round, points and labels."""

    concepts: list[Found]
    objects: dict
    clicks: list


def spoiled(truth, target, side):
    """A rough mask prompt as logits [M, M]: the right mask blurred or not, cut high or low."""
    cover = torch.from_numpy(truth.astype(np.float32))[None, None]
    cover = F.interpolate(cover, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
    if target.blurred:
        cover = F.avg_pool2d(cover, 5, 1, 2)
    return ((cover - target.cut) * 20).clamp(-10, 10)[0, 0].numpy()


def correction(found, truth):
    """The next click and its label, as a function of the two masks: the deepest point of what is most wrong, that is
    missing (1) or too much (0); the deepest point of the object if nothing is wrong."""
    (missing, deep), (extra, shallow) = deepest(truth & ~found), deepest(found & ~truth)
    if max(deep, shallow) == 0:
        return deepest(truth)[0], 1
    return (missing, 1) if deep >= shallow else (extra, 0)


def answer(case, who, threshold):
    """Everything one answerer is asked about a picture."""
    who.look(case.pixels)
    concepts = who.concepts([(q.text, q.box) for q in case.questions], threshold)
    targets, count = case.targets, len(case.targets)
    best = lambda f: (float(f.scores.max()), f.masks[f.scores.argmax()], f.logits[f.scores.argmax()])
    lone = [Shown([t.inner], [1]) for t in targets]
    several = [best(f) for f in who.objects(lone + [Shown([t.deepest], [1]) for t in targets], True)]
    rough = [Shown(logits=spoiled(case.masks[t.index], t, who.side)) for t in targets]
    single = [best(f) for f in who.objects(lone + [Shown(box=t.box) for t in targets] + rough, False)]
    objects = {
        "click": several[:count],
        "click, deepest": several[count:],
        "click, one mask": single[:count],
        "box": single[count : 2 * count],
        "mask": single[2 * count :],
    }
    points, labels, last = [[t.inner] for t in targets], [[1] for _ in targets], objects["click"]
    for turn in range(2, ROUNDS + 1):
        for i, t in enumerate(targets):
            point, label = correction(last[i][1], case.masks[t.index])
            points[i], labels[i] = [*points[i], point], [*labels[i], label]
        shown = [Shown(points[i], labels[i], logits=last[i][2]) for i in range(count)]
        last = objects[f"{turn} clicks"] = [best(f) for f in who.objects(shown, False)]
    return Answers(concepts, objects, list(zip(points, labels)))


class Agreement:
    """How far two answerers are apart. `gap`: the largest difference of logits, by the largest logit, of objects asked
    for alike; `wide` counts gaps over 1e-3. `flips`: concepts with an answer on one side of the threshold only, and the
    farthest such score from it. `splits`: next clicks that differ though all was alike before, and the most pixels that
    the two masks they correct differ by; what follows them is not the same question and not compared."""

    def __init__(self, threshold):
        self.threshold = threshold
        self.facts = dict(questions=0, scores=0.0, flips=0, flip_margin=0.0, concept_iou=1.0)
        self.facts.update(objects=0, gap=0.0, wide=0, ratings=0.0, object_iou=1.0, splits=0, split_pixels=0)

    def most(self, name, value):
        self.facts[name] = max(self.facts[name], float(value))

    def add(self, a, b):
        for one, two in zip(a.concepts, b.concepts):
            self.facts["questions"] += 1
            counts = [int((x.scores > self.threshold).sum()) for x in (one, two)]
            few, common = min(counts), min(len(one.scores), len(two.scores))
            if counts[0] != counts[1]:
                self.facts["flips"] += 1
                self.most("flip_margin", (one, two)[counts[1] > counts[0]].scores[few] - self.threshold)
            if common:
                self.most("scores", np.abs(one.scores[:common] - two.scores[:common]).max())
            if few:
                best = overlaps(one.masks[:few], two.masks[:few]).max(1)
                self.facts["concept_iou"] = min(self.facts["concept_iou"], float(best.min()))
        for name in a.objects:
            turn = int(name.split()[0]) if name.endswith("clicks") else 1
            before = "click" if turn == 2 else f"{turn - 1} clicks"
            for t in range(len(a.clicks)):
                (one, mask, logits), (two, other, others) = a.objects[name][t], b.objects[name][t]
                p, q = (x.clicks[t][0][:turn] for x in (a, b))
                if turn > 1 and p != q:
                    if p[:-1] == q[:-1]:
                        self.facts["splits"] += 1
                        self.most("split_pixels", (a.objects[before][t][1] ^ b.objects[before][t][1]).sum())
                    continue
                gap = np.abs(logits - others).max() / np.abs(others).max()
                self.facts["objects"] += 1
                self.facts["wide"] += int(gap > 1e-3)
                self.most("gap", gap)
                self.most("ratings", abs(one - two))
                iou = float(overlaps(mask[None], other[None])[0, 0]) if mask.any() or other.any() else 1.0
                self.facts["object_iou"] = min(self.facts["object_iou"], iou)


def answerer(name, args):
    """An answerer by name; says what it lacks."""
    wants = {"training": ["checkpoint"], "transformers": ["exported"], "engine": ["exported", "program"]}[name]
    lacks = [f"--{want}" for want in wants if getattr(args, want) is None]
    if lacks:
        raise SystemExit(f"--by {name} wants {' and '.join(lacks)}")
    if name == "training":
        return Training(args.checkpoint, args.device)
    if name == "transformers":
        return Transformers(args.exported, args.device)
    return Engine(args.program, args.exported, threads=args.threads)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--by", nargs="+", choices=("training", "transformers", "engine"), default=["training"])
    parser.add_argument("--checkpoint", type=pathlib.Path, help="for training")
    parser.add_argument("--exported", type=pathlib.Path, help="the files of export.py, for transformers and engine")
    parser.add_argument("--program", type=pathlib.Path, help="the sam3 program, for engine")
    parser.add_argument("--scenes", type=int, default=400, help="pictures, of all groups together")
    parser.add_argument("--first", type=int, default=0, help="number of the first picture")
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument(
        "--threshold", type=float, nargs="+", default=[0.3, 0.5], help="the bars are judged at the last"
    )
    parser.add_argument("--look", type=int, default=192, help="the model's side: sizes below are in its pixels")
    parser.add_argument("--most", type=int, default=8, help="objects per picture, as trained")
    parser.add_argument("--span", type=float, nargs=2, default=(18, 100), help="object diameters, as trained")
    parser.add_argument("--atlas", type=pathlib.Path, help="drawings of this file as well")
    parser.add_argument("--device", default="cpu", help="of training and transformers")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--sheet", type=pathlib.Path, help="a PNG of pictures with the last answerer's masks")
    parser.add_argument("--sheet-pictures", type=int, default=24)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.allow_tf32 = False  # f32 means f32
    spec, names = Spec(args.look, args.most, tuple(args.span)), ()
    if args.atlas:
        tiles, shows, names = unpack(args.atlas, 96, styles())
        other, shown, _ = unpack(args.atlas, 96, styles(HELD_OUT_STYLE))
        labels = tuple(sorted({fact["label"] for fact in names}))
        spec = dataclasses.replace(spec, drawings=(tiles, shows), held_out=(other, shown), labels=labels)
    phrases = Phrases(PRESETS["full"], names)
    who = {name: answerer(name, args) for name in args.by}
    scores = {name: Score(args.threshold, args.look) for name in who}
    agreement = {pair: Agreement(args.threshold[-1]) for pair in itertools.combinations(args.by, 2)}
    pairs, begin = [], time.monotonic()
    for i, case in enumerate(cases(spec, phrases, args.scenes, args.groups, args.first)):
        answers = {name: answer(case, one, min(args.threshold)) for name, one in who.items()}
        for name, said in answers.items():
            scores[name].add(case, said)
        for (one, two), between in agreement.items():
            between.add(answers[one], answers[two])
        if args.sheet and len(pairs) < args.sheet_pictures:
            pairs.append(sheet.panels(case, answers[args.by[-1]], args.threshold[-1], i // len(args.groups)))
            sheet.write(args.sheet, pairs)
        if (i + 1) % 20 == 0:
            print(f"{i + 1} pictures, {(time.monotonic() - begin) / (i + 1):.1f} s each", flush=True)
    figures = {name: score.figures() for name, score in scores.items()}
    facts = dict(vars(args), facts=getattr(who.get("training"), "facts", None))
    facts = {k: v if isinstance(v, (int, float, list, dict, type(None))) else str(v) for k, v in facts.items()}
    print(f"{args.scenes} pictures, looks of {args.look} px, {args.most} objects of {args.span} px; {facts['facts']}")
    print(table(figures))
    print(f"\nweak spots of {args.by[-1]}\n" + weak_spots(scores[args.by[-1]].breakdown()))
    apart = {" and ".join(pair): between.facts for pair, between in agreement.items()}
    for pair, differences in apart.items():
        print(f"\n{pair}: " + ", ".join(f"{k} {v:.3g}" for k, v in differences.items()))
    if args.json:
        parts = {name: score.breakdown() for name, score in scores.items()}
        told = dict(facts=facts, figures=figures, breakdown=parts, agreement=apart)
        args.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
