"""Writes losses.json: GRPO losses and their gradients by TRL's own code (trl 1.13, torch 2.13, float64).

GRPOTrainer._compute_loss runs on a stand-in for the trainer whose model "returns" given log-probabilities and
entropies, so the loss, its aggregation over padded rows, KL, entropy and two-sided clipping are TRL's. TRL's
`delta` is the dual clip. Usage: python test/golden/losses.py
"""

import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import torch
from trl.trainer.grpo_trainer import GRPOTrainer

torch.manual_seed(7)
LENGTHS = [5, 1, 3, 4]
ADVANTAGES = torch.tensor([1.3, -0.7, -1.9, 0.0], dtype=torch.float64)
WIDTH = max(LENGTHS)
MASK = torch.tensor([[1.0] * n + [0.0] * (WIDTH - n) for n in LENGTHS], dtype=torch.float64)


def padded(rows):
    out = torch.zeros(len(LENGTHS), WIDTH, dtype=torch.float64)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


OLD = padded([-3 * torch.rand(n, dtype=torch.float64) - 0.1 for n in LENGTHS])
# Ratios from far below to far above every clip.
NEW = OLD + MASK * torch.randn(len(LENGTHS), WIDTH, dtype=torch.float64)
NEW[2, 0] = OLD[2, 0] + 1.9  # ratio 6.7 at a negative advantage: beyond the dual clip
REFERENCE = NEW + MASK * 0.5 * torch.randn(len(LENGTHS), WIDTH, dtype=torch.float64)
ENTROPY = MASK * torch.rand(len(LENGTHS), WIDTH, dtype=torch.float64)


def flat(tensor):
    return tensor[MASK.bool()].tolist()


def trl_loss(logprobs, entropy, options):
    trainer = MagicMock()
    trainer.__class__ = GRPOTrainer
    trainer._get_per_token_logps_and_entropies = lambda *args, **kwargs: (logprobs, entropy, None)
    trainer.loss_type = "bnpo" if options["aggregation"] == "token" else "grpo"
    trainer.importance_sampling_level = "token"
    trainer.epsilon_low, trainer.epsilon_high = options["clipLow"], options["clipHigh"]
    trainer.args = SimpleNamespace(delta=options["dualClip"], use_bias_correction_kl=False)
    trainer.beta = options["kl"]
    trainer.top_entropy_quantile = 1.0
    trainer.off_policy_mask_threshold = None
    trainer.use_vllm = False
    trainer.aux_loss_enabled = False
    trainer._entropy_bonus_enabled = options["entropy"] > 0
    trainer.use_adaptive_entropy = False
    trainer.entropy_coef = options["entropy"]
    trainer.model.training = False
    trainer.accelerator.gather = lambda tensor: tensor
    trainer._metrics = defaultdict(lambda: defaultdict(list))
    ids = torch.ones(len(LENGTHS), WIDTH, dtype=torch.long)
    inputs = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": ids[:, :1],
        "completion_ids": ids,
        "completion_mask": MASK,
        "advantages": ADVANTAGES,
        "old_per_token_logps": OLD,
        "ref_per_token_logps": REFERENCE,
    }
    return GRPOTrainer._compute_loss(trainer, None, inputs)


DEFAULT = {"clipLow": 0.2, "clipHigh": 0.2, "dualClip": None, "kl": 0.0, "entropy": 0.0, "aggregation": "token"}
CASES = {
    "token": {},
    "sequence": {"aggregation": "sequence"},
    "asymmetric clip": {"clipHigh": 0.28},
    "dual clip": {"clipHigh": 0.28, "dualClip": 3.0},
    "dual clip, sequence": {"dualClip": 3.0, "aggregation": "sequence"},
    "kl": {"kl": 0.1},
    "kl, sequence": {"kl": 0.1, "aggregation": "sequence"},
    "entropy": {"entropy": 0.05},
}

cases = []
for name, changes in CASES.items():
    options = {**DEFAULT, **changes}
    logprobs = NEW.clone().requires_grad_()
    entropy = ENTROPY.clone().requires_grad_()
    loss = trl_loss(logprobs, entropy, options)
    loss.backward()
    zeros = torch.zeros_like(ENTROPY)
    cases.append(
        {
            "name": name,
            "options": options,
            "loss": loss.item(),
            "logprobsGradient": flat(logprobs.grad),
            "entropyGradient": flat(zeros if entropy.grad is None else entropy.grad),
        }
    )

golden = {
    "lengths": LENGTHS,
    "advantages": ADVANTAGES.tolist(),
    "logprobs": flat(NEW),
    "oldLogprobs": flat(OLD),
    "referenceLogprobs": flat(REFERENCE),
    "entropy": flat(ENTROPY),
    "cases": cases,
}
Path(__file__).with_suffix(".json").write_text(json.dumps(golden, indent=1) + "\n")
