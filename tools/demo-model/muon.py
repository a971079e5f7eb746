"""Muon: momentum whose matrices are made orthogonal before each step (K. Jordan, 2024), for a model of many small matrices.

Under AdamW a matrix moves mostly along the few directions that gradients agree on; made orthogonal, a step moves all of
its directions alike, and transformers of this size learn in about half the steps. Matrices of one shape are stacked and
handled by one batched product. Steps are scaled to the spread of an AdamW step (0.2 per entry), so one rate serves both
(J. Liu et al., "Muon is scalable for LLM training", 2025).
"""

import torch

# Coefficients of the quintic whose five rounds push all singular values from 0.001..1 into about 0.7..1.2 (Jordan).
QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonal(stack, rounds=5):
    """Nearest (roughly) orthogonal matrices of a stack [n, rows, columns], by Newton-Schulz rounds in its own type.

    bfloat16 is precise enough and fast where there are instructions for it; where there are none, f32 is 140 times as
    fast (LOG.md, run 14).
    """
    a, b, c = QUINTIC
    x = stack
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(rounds):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """For weights of two or more dimensions; those beyond the first are read as one (convolutions)."""

    def __init__(self, groups, rate, momentum=0.95, dtype=torch.bfloat16):
        super().__init__(groups, dict(lr=rate, momentum=momentum, weight_decay=0.0))
        self.dtype = dtype

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            shapes = {}
            for p in group["params"]:
                if p.grad is not None:
                    shapes.setdefault((p.shape[0], p[0].numel()), []).append(p)
            for (rows, columns), members in shapes.items():
                for p in members:
                    if not self.state[p]:
                        self.state[p]["momentum"] = torch.zeros_like(p)
                momenta = [self.state[p]["momentum"] for p in members]
                grads = [p.grad for p in members]
                torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
                ahead = torch._foreach_lerp(grads, momenta, group["momentum"])  # Nesterov's look ahead
                moves = orthogonal(torch.stack([m.reshape(rows, columns) for m in ahead]).to(self.dtype)).float()
                scale = 0.2 * max(rows, columns) ** 0.5
                if group["weight_decay"]:
                    torch._foreach_mul_(members, 1 - group["lr"] * group["weight_decay"])
                steps = [m.reshape(p.shape) for m, p in zip(moves.unbind(0), members)]
                torch._foreach_add_(members, steps, alpha=-group["lr"] * scale)
