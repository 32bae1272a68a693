"""Writes estimators.json: advantages of random rewards, and overlong punishments, by TRL's own code (trl 1.13).

The lines of GRPOTrainer and RLOOTrainer that turn rewards into advantages stand in the middle of a long method; they
are cut out of it and run as they are, but for GRPO's ε, which is 1e-4 in TRL and 1e-6 here and in verl.
Usage: python test/golden/estimators.py
"""

import inspect
import json
import textwrap
from pathlib import Path
from types import SimpleNamespace

import torch
from trl.rewards import get_soft_overlong_punishment
from trl.trainer import grpo_trainer, rloo_trainer

torch.manual_seed(5)
GROUPS, SIZE = 6, 5
REWARDS = torch.rand(GROUPS * SIZE, dtype=torch.float64)
REWARDS[SIZE : 2 * SIZE] = 1.0  # a group without variance
REWARDS[2 * SIZE : 3 * SIZE] = torch.tensor([1.0, 0, 0, 1, 0])


def cut(cls, first, last):
    """The lines of the method from one that begins with `first` to the one before `last`."""
    lines = inspect.getsource(cls._generate_and_score_completions).splitlines()
    begin = next(i for i, line in enumerate(lines) if line.strip().startswith(first))
    end = next(i for i, line in enumerate(lines) if i > begin and line.strip().startswith(last))
    return textwrap.dedent("\n".join(lines[begin:end]))


def run(code, module, trainer):
    scope = vars(module) | {
        "self": trainer,
        "rewards_per_func": REWARDS[:, None],
        "unscorable_mask": torch.zeros(len(REWARDS), dtype=torch.bool),
        "num_generations": SIZE,
        "device": "cpu",
    }
    exec(code, scope)
    return scope["advantages"].tolist()


weights = torch.ones(1, dtype=torch.float64)
grpo = cut(grpo_trainer.GRPOTrainer, "if self.multi_objective_aggregation", "# Slice to keep only").replace("1e-4", "1e-6")
rloo = cut(rloo_trainer.RLOOTrainer, "rewards = (rewards_per_func", "is_std_zero")
advantages = {
    scale: run(
        grpo,
        grpo_trainer,
        SimpleNamespace(multi_objective_aggregation="sum_then_normalize", scale_rewards=scale, reward_weights=weights),
    )
    for scale in ["group", "batch", "none"]
}
advantages["rloo"] = run(
    rloo,
    rloo_trainer,
    SimpleNamespace(reward_weights=weights, reward_clip_range=None, beta=0.0, normalize_advantages=False),
)
lengths = [0, 1, 60, 79, 80, 81, 90, 99, 100, 150]
punish = get_soft_overlong_punishment(max_completion_len=100, soft_punish_cache=20)
overlong = punish(completion_ids=[[1] * n for n in lengths])
golden = {"overlong": {"lengths": lengths, "values": overlong}, "size": SIZE, "rewards": REWARDS.tolist(), "advantages": advantages}
Path(__file__).with_suffix(".json").write_text(json.dumps(golden, indent=1) + "\n")
