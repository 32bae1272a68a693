"""Writes losses.json: losses and their gradients by TRL's own code (trl 1.13, torch 2.13, float64).

GRPOTrainer._compute_loss runs on a stand-in for the trainer whose model "returns" given log-probabilities and
entropies, so the losses, their aggregation over padded rows, KL, entropy and clipping are TRL's. TRL's `delta` is the
dual clip. The ratio between rollout and trainer, and the mask of truncated responses, are TRL's too: their lines are cut
out of the method that they stand in.
Usage: python test/golden/losses.py
"""

import inspect
import json
import textwrap
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import torch
from trl.trainer import grpo_trainer
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


# What the rollout says of the same tokens: ratios to OLD from a third to three.
SAMPLED = OLD + MASK * (2 * torch.rand(len(LENGTHS), WIDTH, dtype=torch.float64) - 1)


def flat(tensor):
    return tensor[MASK.bool()].tolist()


def cut(first, last):
    """The lines of GRPOTrainer from one that begins with `first` to the one before `last`."""
    lines = inspect.getsource(GRPOTrainer._generate_and_score_completions).splitlines()
    begin = next(i for i, line in enumerate(lines) if line.strip().startswith(first))
    end = next(i for i, line in enumerate(lines) if i > begin and line.strip().startswith(last))
    return textwrap.dedent("\n".join(lines[begin:end]))


IMPORTANCE = cut("# Compute the importance sampling ratio when using vLLM", "# Compute the per-token log probabilities for the reference")


def importance_ratio(trainer):
    scope = vars(grpo_trainer) | {
        "self": trainer,
        "completion_mask": MASK,
        "tool_mask": None,
        "old_per_token_logps": OLD,
        "sampling_per_token_logps": SAMPLED,
    }
    exec(IMPORTANCE, scope)
    return scope["vllm_importance_sampling_ratio"]


MASKING = cut("# If mask_truncated_completions is enabled", "loss_mask = completion_mask")
END = 2


def mask_of(truncated):
    """TRL's mask_truncated_completions: a response is one if it does not end in the end token."""
    trainer = SimpleNamespace(
        mask_truncated_completions=True, _tokenizer=SimpleNamespace(eos_token_id=END, pad_token_id=0)
    )
    ids = [[1] * (n - 1) + [1 if cut_off else END] for n, cut_off in zip(LENGTHS, truncated)]
    scope = {"torch": torch, "self": trainer, "device": "cpu", "completion_ids_list": ids, "tool_mask": None}
    scope["completion_mask"] = MASK
    exec(MASKING, scope)
    return scope["completion_mask"]


# How TRL names what adds the tokens up, for the losses whose term is GRPO's.
AGGREGATIONS = {"token": "bnpo", "sequence": "grpo", "constant": "dr_grpo"}


def trl_loss(logprobs, entropy, options):
    trainer = MagicMock()
    trainer.__class__ = GRPOTrainer
    trainer._get_per_token_logps_and_entropies = lambda *args, **kwargs: (logprobs, entropy, None)
    name = options["name"]
    trainer.loss_type = {"cispo": "cispo", "sapo": "sapo", "dapo": "dapo"}.get(name, AGGREGATIONS[options["aggregation"]])
    trainer.importance_sampling_level = "sequence" if name == "gspo" else "token"
    trainer.epsilon_low, trainer.epsilon_high = options.get("clipLow"), options.get("clipHigh")
    if name == "cispo":
        trainer.epsilon_high = 1 + options["clipHigh"]  # TRL's is the bound itself
    trainer.max_completion_length = options.get("length")
    trainer.args = SimpleNamespace(
        delta=options.get("dualClip"),
        use_bias_correction_kl=False,
        sapo_temperature_pos=options.get("temperaturePositive"),
        sapo_temperature_neg=options.get("temperatureNegative"),
    )
    trainer.beta = options["kl"]
    trainer.top_entropy_quantile = 1.0
    trainer.off_policy_mask_threshold = None
    trainer.use_vllm = "importance" in options
    trainer.vllm_importance_sampling_correction = True
    if trainer.use_vllm:
        importance = options["importance"]
        trainer.vllm_importance_sampling_mode = f"{importance['level']}_{importance['outside']}"
        trainer.vllm_importance_sampling_clip_min = importance["low"]
        trainer.vllm_importance_sampling_clip_max = importance["high"]
    trainer.aux_loss_enabled = False
    trainer._entropy_bonus_enabled = options["entropy"] > 0
    trainer.use_adaptive_entropy = False
    trainer.entropy_coef = options["entropy"]
    trainer.model.training = False
    trainer.accelerator.gather = lambda tensor: tensor
    trainer.accelerator.num_processes = 1
    trainer._metrics = defaultdict(lambda: defaultdict(list))
    ids = torch.ones(len(LENGTHS), WIDTH, dtype=torch.long)
    inputs = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": ids[:, :1],
        "completion_ids": ids,
        "completion_mask": mask_of(options["truncated"]) if "truncated" in options else MASK,
        "advantages": ADVANTAGES,
        "old_per_token_logps": OLD,
        "ref_per_token_logps": REFERENCE,
        "num_items_in_batch": MASK.sum(),
    }
    if trainer.use_vllm:
        inputs["importance_sampling_ratio"] = importance_ratio(trainer)
    return GRPOTrainer._compute_loss(trainer, None, inputs)


COMMON = {"kl": 0.0, "entropy": 0.0}
GRPO = {"name": "grpo", "clipLow": 0.2, "clipHigh": 0.2, "dualClip": None, "aggregation": "token"} | COMMON


def importance(level, outside, low, high):
    return {"importance": {"level": level, "outside": outside, "low": low, "high": high}}


TRUNCATED = [False, True, True, False]

# SAPO temperatures: TRL rounds them to float32, which these are.
CASES = {
    "token": GRPO,
    "sequence": GRPO | {"aggregation": "sequence"},
    "constant": GRPO | {"aggregation": "constant", "length": 7},
    "asymmetric clip": GRPO | {"clipHigh": 0.28},
    "dual clip": GRPO | {"clipHigh": 0.28, "dualClip": 3.0},
    "dual clip, sequence": GRPO | {"dualClip": 3.0, "aggregation": "sequence"},
    "kl": GRPO | {"kl": 0.1},
    "kl, sequence": GRPO | {"kl": 0.1, "aggregation": "sequence"},
    "entropy": GRPO | {"entropy": 0.05},
    "dapo": GRPO | {"name": "dapo", "clipHigh": 0.28},
    "gspo": GRPO | {"name": "gspo", "clipHigh": 0.28, "aggregation": "sequence"},
    "gspo, bounds of the paper": GRPO | {"name": "gspo", "clipLow": 3e-4, "clipHigh": 4e-4, "aggregation": "sequence"},
    "cispo": {"name": "cispo", "clipLow": 1.0, "clipHigh": 0.5, "aggregation": "token"} | COMMON,
    "sapo": {"name": "sapo", "temperaturePositive": 1.25, "temperatureNegative": 1.0625, "aggregation": "sequence"} | COMMON,
    "importance by token": GRPO | {"kl": 0.1} | importance("token", "truncate", None, 1.5),
    "importance by token, masked": GRPO | importance("token", "mask", 0.5, 1.5),
    "importance by sequence": GRPO | importance("sequence", "truncate", 0.8, 1.2),
    "importance by sequence, masked": GRPO | {"aggregation": "sequence"} | importance("sequence", "mask", 0.5, 2.0),
    "truncated masked, token": GRPO | {"kl": 0.1, "truncated": TRUNCATED},
    "truncated masked, sequence": GRPO | {"aggregation": "sequence", "truncated": TRUNCATED},
    "truncated masked, constant": GRPO | {"aggregation": "constant", "length": 7, "truncated": TRUNCATED},
    "gspo, importance by token": GRPO | {"name": "gspo", "aggregation": "sequence"} | importance("token", "truncate", None, 1.5),
}

cases = []
for name, options in CASES.items():
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
    "rolloutLogprobs": flat(SAMPLED),
    "referenceLogprobs": flat(REFERENCE),
    "entropy": flat(ENTROPY),
    "cases": cases,
}
Path(__file__).with_suffix(".json").write_text(json.dumps(golden, indent=1) + "\n")
