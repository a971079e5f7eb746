"""Test pictures with an answerer's masks drawn, as one PNG for people to look at.

Each picture is shown twice. Left: one question, every answer tinted, the words below with the scores; green where the
answers are right, red where not. Right: one object after one click (white outline), three clicks (tinted), and in red
the outline it should have; below the two IoU. Clicks are dots, green on the object and red beside it.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_dilation

from tally import match, overlaps

TINTS = np.array([(230, 25, 75), (60, 180, 75), (67, 99, 216), (245, 130, 49), (145, 30, 180), (66, 212, 244)])
CELL, NOTE = 250, 34  # pixels: side of a picture's cell, height of the words below
GOOD, BAD = (0, 120, 30), (200, 0, 0)


def rim(mask):
    return binary_dilation(mask, iterations=2) & ~mask


def tinted(pixels, masks):
    out = pixels.astype(float)
    for i, mask in enumerate(masks):
        out[mask] = out[mask] * 0.7 + TINTS[i % len(TINTS)] * 0.3
        out[rim(mask)] = 255 if out[rim(mask)].mean() < 140 else 0
    return out


def panel(pixels, note, right, dots=()):
    """A cell: the picture fitted into it, dots (x, y, colour), a note of at most two lines."""
    height, width = pixels.shape[:2]
    scale = CELL / max(height, width)
    size = round(width * scale), round(height * scale)
    cell = Image.new("RGB", (CELL, size[1] + NOTE), "white")
    picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).resize(size, Image.LANCZOS)
    draw = ImageDraw.Draw(picture)
    for x, y, colour in dots:
        x, y = x * scale, y * scale
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colour, outline="white")
    cell.paste(picture, ((CELL - size[0]) // 2, 0))
    ImageDraw.Draw(cell).text((3, size[1] + 1), note, fill=GOOD if right else BAD, font=ImageFont.load_default(12))
    return cell


def panels(case, answers, threshold, turn):
    """The two cells of one picture; question and object number `turn`, or the last there is."""
    cells = []
    if case.questions:
        q = turn % len(case.questions)
        question, found = case.questions[q], answers.concepts[q]
        kept = found.scores > threshold
        best, _ = match(found.masks[kept], case.masks[question.truth])
        right = bool((best > 0).all()) and len(best) == int(kept.sum())
        asked = " + ".join(([question.text] if question.text else []) + ["box"] * (question.box is not None))
        scores = " ".join(f"{s:.2f}" for s in found.scores[kept]) or "nothing"
        picture = tinted(case.pixels, found.masks[kept])
        if question.box:
            frame = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
            ImageDraw.Draw(frame).rectangle(question.box, outline="white", width=3)
            picture = np.asarray(frame)
        cells.append(panel(picture, f"{asked} (there: {len(question.truth)})\n{scores}", right))
    if case.targets:
        t = turn % len(case.targets)
        truth = case.masks[case.targets[t].index]
        one, three = (answers.objects[name][t][1] for name in ("click", "3 clicks"))
        picture = tinted(case.pixels, [three])
        picture[rim(one)] = 255
        picture[rim(truth)] = (255, 0, 0)
        ious = [float(overlaps(m[None], truth[None])[0, 0]) for m in (one, three)]
        dots = [(x, y, "green" if label else "red") for (x, y), label in zip(*answers.clicks[t])]
        note = f"{' '.join(case.names[case.targets[t].index])}\n1 click {ious[0]:.2f}, 3 clicks {ious[1]:.2f}"
        cells.append(panel(picture, f"[{case.group}] {note}", ious[1] >= 0.85, dots))
    return cells


def write(path, pairs, columns=6):
    """A PNG of all cells, a picture's two side by side."""
    cells = [cell for pair in pairs for cell in pair]
    rows = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    heights = [max(cell.height for cell in row) + 6 for row in rows]
    sheet = Image.new("RGB", (columns * (CELL + 6), sum(heights)), "white")
    for k, row in enumerate(rows):
        for i, cell in enumerate(row):
            sheet.paste(cell, (i * (CELL + 6), sum(heights[:k])))
    sheet.save(path)
