"""Figures of the test set: what is counted, for whom, and the tables.

A concept's answers are matched to its truths one to one by IoU (Hungarian); a match counts from IoU 0.5. No doubles are
suppressed: a second answer for one object is a false one. Clicks, boxes and masks are mean IoU over objects.
"""

import numpy as np
from scipy.optimize import linear_sum_assignment

ALL = "all"
# Figure: (bar, whether the figure must be at least or at most that).
BARS = {
    "phrases F1": (0.9, ">="),
    "phrases mean IoU": (0.85, ">="),
    "phrases absent answered": (0.05, "<="),
    "click IoU": (0.85, ">="),
    "3 clicks IoU": (0.92, ">="),
    "box IoU": (0.9, ">="),
}
SIZES = (24, 36, 54)  # pixels of the model's picture across, between small, middling, large and larger


def overlaps(found, truth):
    """IoU [a, b] of masks [a, H, W] and [b, H, W]."""
    a, b = (m.reshape(len(m), -1).astype(np.float32) for m in (found, truth))
    both = a @ b.T
    return both / np.maximum(a.sum(1)[:, None] + b.sum(1)[None] - both, 1)


def match(found, truth):
    """The IoU of each truth's answer, 0 where none reaches 0.5; how many other answers lie on a truth as well."""
    best, doubles = np.zeros(len(truth)), 0
    if len(found) and len(truth):
        iou = overlaps(found, truth)
        rows, columns = linear_sum_assignment(-iou)
        best[columns] = np.where(iou[rows, columns] >= 0.5, iou[rows, columns], 0)
        doubles = int((iou.max(1) >= 0.5).sum()) - int((best > 0).sum())
    return best, doubles


class Concepts:
    """Counts over questions of one kind; those without a truth count for `absent`."""

    def __init__(self):
        self.matched = self.answers = self.truths = self.absent = self.answered = self.doubles = 0
        self.iou = 0.0

    def add(self, answers, best, doubles):
        if not len(best):
            self.absent += 1
            self.answered += answers > 0
        self.answers, self.truths = self.answers + answers, self.truths + len(best)
        self.doubles += doubles
        self.matched, self.iou = self.matched + int((best > 0).sum()), self.iou + float(best.sum())

    def report(self, name):
        share = lambda a, b: float(a) / b if b else None
        figures = {
            "F1": share(2 * self.matched, self.answers + self.truths),
            "precision": share(self.matched, self.answers),
            "recall": share(self.matched, self.truths),
            "doubles": share(self.doubles, self.answers),
            "mean IoU": share(self.iou, self.matched),
            "absent answered": share(self.answered, self.absent),
        }
        return {f"{name} {k}": v for k, v in figures.items() if v is not None}


class Score:
    """Figures of one answerer, by group of pictures and for all of them, and what they depend on."""

    def __init__(self, thresholds, look):
        self.thresholds, self.look = thresholds, look
        self.concepts, self.ious, self.parts = {}, {}, {}

    def add(self, case, answers):
        """`answers` as `evaluate.answer` gives them."""
        height, width = case.pixels.shape[:2]
        about = []
        for mask, (colour, shape) in zip(case.masks, case.names):
            x, y = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
            side = np.sqrt((x[-1] - x[0] + 1) * (y[-1] - y[0] + 1) / (height * width)) * self.look
            limits = (0, *SIZES, "more")
            i = sum(side >= s for s in SIZES)
            about.append(
                dict(colour=colour or "none", shape=shape or "none", size=f"{limits[i]} to {limits[i + 1]} px")
            )
            about[-1].update(aspect=case.aspect, group=case.group)
        for question, found in zip(case.questions, answers.concepts):
            truth = case.masks[question.truth]
            for threshold in self.thresholds:
                kept = found.masks[found.scores > threshold]
                best, doubles = match(kept, truth)
                name = "exemplars" if question.kind == "exemplars" else "phrases"
                for group in (ALL, case.group):
                    self.concepts.setdefault((group, name, threshold), Concepts()).add(len(kept), best, doubles)
                if name == "phrases" and threshold == self.thresholds[-1]:
                    for k, iou in zip(question.truth, best):
                        self.note("recall", iou > 0, {**about[k], "phrase": question.kind})
                        if iou > 0:
                            self.note("mean IoU", iou, {**about[k], "phrase": question.kind})
                    wrong = len(kept) - int((best > 0).sum())
                    facts = dict(aspect=case.aspect, group=case.group, phrase=question.kind)
                    self.note("false answers", wrong, {**facts, "asked": question.text})
        for name, found in answers.objects.items():
            for target, (_, mask, _) in zip(case.targets, found):
                iou = float(overlaps(mask[None], case.masks[target.index][None])[0, 0])
                for group in (ALL, case.group):
                    self.ious.setdefault((group, name), []).append(iou)
                if name in ("click", "3 clicks", "box"):
                    self.note(f"{name} IoU", iou, about[target.index])

    def note(self, figure, value, facts):
        for fact, of in facts.items():
            self.parts.setdefault(fact, {}).setdefault(of, {}).setdefault(figure, []).append(float(value))

    def figures(self):
        """{group: {figure: value}}; figures of concepts at other than the last threshold say which."""
        out = {}
        for (group, name, threshold), concepts in self.concepts.items():
            at = "" if threshold == self.thresholds[-1] else f" @ {threshold}"
            out.setdefault(group, {}).update({k + at: v for k, v in concepts.report(name).items()})
        for (group, name), ious in self.ious.items():
            out.setdefault(group, {})[f"{name} IoU"] = float(np.mean(ious))
        return out

    def breakdown(self):
        """{fact: {value: {figure: [mean, count]}}}."""
        return {
            fact: {of: {f: [round(float(np.mean(v)), 4), len(v)] for f, v in of_.items()} for of, of_ in values.items()}
            for fact, values in self.parts.items()
        }


def table(columns):
    """Markdown of {answerer: {group: {figure: value}}}: every figure for all pictures, the barred ones by group."""
    names = list(columns)
    several = len(names) > 1
    lines = ["| pictures | figure | bar | " + " | ".join(names) + (" | largest difference |" if several else " |")]
    lines += ["|" + "---|" * (3 + len(names) + several)]
    for group in columns[names[0]]:
        for figure in columns[names[0]][group]:
            if group != ALL and figure not in BARS:
                continue
            values = [columns[n][group].get(figure) for n in names]
            bar, sense = BARS.get(figure, ("", ""))
            cells = ["" if v is None else f"{v:.3f}" for v in values]
            if several:
                there = [v for v in values if v is not None]
                cells.append(f"{max(there) - min(there):.4f}" if there else "")
            lines.append(f"| {group} | {figure} | {sense} {bar} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def weak_spots(breakdown, least=5):
    """Markdown: recall, IoU and clicks by shape, size, aspect, group and kind of phrase."""
    figures = ("recall", "mean IoU", "false answers", "click IoU", "3 clicks IoU", "box IoU")
    lines = ["| by | | " + " | ".join(figures) + " | objects asked |", "|" + "---|" * (len(figures) + 3)]
    for fact, values in breakdown.items():
        if fact == "asked":
            continue
        for of, found in sorted(values.items()):
            count = max(n for _, n in found.values())
            if count >= least:
                cells = [f"{found[f][0]:.2f}" if f in found else "" for f in figures]
                lines.append(f"| {fact} | {of} | " + " | ".join(cells) + f" | {count} |")
    return "\n".join(lines)
