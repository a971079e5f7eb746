"""A weighted mean of checkpoints that went on from each other, as a checkpoint to begin with or to export.

    python soup.py RUN/soup-240.pt 0.2 ../../assets/demo 0.3 RUN16/find-240.pt 0.5 RUN17/find-240.pt

Weights that a short training moved from a common beginning lie in one basin, and their mean forgets less of the first and
errs less than the last (Wortsman et al., "Model soups", 2022). The last checkpoint gives the side and all that is no weight.
"""

import argparse
import pathlib

import torch

from config import PRESETS, at_size
from model import Demo
from train import beginning, fit


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("parts", nargs="+", help="shares and checkpoints (or directories that export.py wrote) by turns")
    args = parser.parse_args()
    shares, paths = [float(s) for s in args.parts[::2]], [pathlib.Path(p) for p in args.parts[1::2]]
    if len(shares) != len(paths) or abs(sum(shares) - 1) > 1e-6:
        raise SystemExit(f"expected shares that add up to 1, each before its checkpoint; found {args.parts}")
    last = torch.load(paths[-1], map_location="cpu", weights_only=False)
    model = Demo(at_size(PRESETS[last["preset"]], last["size"]))
    states = [fit(beginning(path, "cpu"), model) for path in paths]
    mean = dict(states[-1])
    for name, value in mean.items():
        # The aids are not exported; a part without them leaves the last's.
        if value.is_floating_point() and all(name in state for state in states):
            mean[name] = sum(share * state[name] for share, state in zip(shares, states))
    torch.save({**last, "ema": mean}, args.out)


if __name__ == "__main__":
    main()
