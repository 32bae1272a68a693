"""Reward functions with TRL's signature (docs/rewards.md)."""


def short_answer(completions, **columns):
    """1 for an answer of one word, down to 0 for ten."""
    words = [len(completion[0]["content"].split()) for completion in completions]
    return [max(0.0, 1 - (count - 1) / 9) for count in words]
