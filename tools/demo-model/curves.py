"""Draws the logs of a run as one picture: python curves.py RUN curves.png"""

import csv
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

SKIP = ("images", "minutes", "rate")


def main(run, target):
    logs = {path.stem: list(csv.DictReader(path.open())) for path in sorted(pathlib.Path(run).glob("*.csv"))}
    names = [n for n in dict.fromkeys(n for rows in logs.values() for n in rows[0]) if n not in SKIP]
    columns = 4
    figure, axes = pyplot.subplots(-(-len(names) // columns), columns, figsize=(16, 2.6 * -(-len(names) // columns)))
    for axis, name in zip(axes.flat, names):
        for stage, rows in logs.items():
            points = [(int(r["images"]), float(r[name])) for r in rows if r.get(name)]
            if points:
                axis.plot(*zip(*points), label=stage)
        axis.set_title(name, fontsize=9)
        axis.tick_params(labelsize=7)
    axes.flat[0].legend(fontsize=7)
    for axis in list(axes.flat)[len(names) :]:
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(target, dpi=80)


if __name__ == "__main__":
    main(*sys.argv[1:])
