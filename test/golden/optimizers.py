"""Golden values of test/engine/optimizer.test.ts: torch.optim's own steps on fixed gradients.

Run with torch 2.13: python test/golden/optimizers.py. Writes optimizers.json beside this file.
"""

import json
from pathlib import Path

import torch

STEPS = 5
torch.manual_seed(0)
parameters = [torch.randn(3, 4, dtype=torch.float64), torch.randn(5, dtype=torch.float64)]
gradients = [[torch.randn_like(p) for p in parameters] for _ in range(STEPS)]


def flat(tensors):
    return [tensor.reshape(-1).tolist() for tensor in tensors]


def run(make, dtype, skip=None):
    """Parameters after each step. `skip`: (step, parameter) without a gradient."""
    leaves = [p.to(dtype).clone().requires_grad_() for p in parameters]
    optimizer = make(leaves)
    history = []
    for step in range(STEPS):
        for i, leaf in enumerate(leaves):
            leaf.grad = None if (step, i) == skip else gradients[step][i].to(dtype)
        optimizer.step()
        history.append(flat([leaf.detach().double() for leaf in leaves]))
    return history


def adamw(leaves):
    groups = [{"params": leaves[:1], "weight_decay": 0.1}, {"params": leaves[1:], "lr": 3e-3}]
    return torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0)


def sgd(leaves):
    return torch.optim.SGD(leaves, lr=1e-2, momentum=0.9, weight_decay=0.1)


def clip(maximum):
    leaves = [p.clone().requires_grad_() for p in parameters]
    for leaf, gradient in zip(leaves, gradients[0]):
        leaf.grad = gradient.clone()
    norm = torch.nn.utils.clip_grad_norm_(leaves, maximum)
    return {"maximum": maximum, "norm": norm.item(), "gradients": flat([leaf.grad for leaf in leaves])}


golden = {
    "torch": torch.__version__,
    "shapes": [list(p.shape) for p in parameters],
    "parameters": flat(parameters),
    "gradients": [flat(step) for step in gradients],
    "adamw": {"float32": run(adamw, torch.float32), "float64": run(adamw, torch.float64)},
    "adamw_skip": run(adamw, torch.float64, skip=(1, 1)),
    "sgd": {"float32": run(sgd, torch.float32), "float64": run(sgd, torch.float64)},
    "clip": [clip(1.0), clip(100.0)],
}
Path(__file__).with_suffix(".json").write_text(json.dumps(golden) + "\n")
