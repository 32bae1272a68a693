"""Role gradients of recorded calls on the model of models/qwen3-tied, by PyTorch, one backward a group.

Writes gradients/calls.jsonl (several groups whose prompts and responses begin alike, and a second level that shares
only the prompt) and gradients/expected.json: for each --by, the groups in sorted order with norm, Gram matrix, tokens,
total norm, and the same by module kind (all norms are one) and by layer; fp64. gradients/bfloat16.json has what a
transformers model in bf16 gives for them: how far bf16 may be off.

    python test/golden/gradients.py        torch 2.13, transformers 5.17; after models.py
"""

import json
import pathlib

import torch
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent
MODEL = HERE / "models" / "qwen3-tied"
OUT = HERE / "gradients"
KINDS = {
    "embed_tokens": "embedding", "q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "o", "gate_proj": "gate",
    "up_proj": "up", "down_proj": "down",
}


def recorded_calls() -> list[dict]:
    generator = torch.Generator().manual_seed(11)
    draw = lambda n: torch.randint(0, 61, (n,), generator=generator).tolist()
    question, follow_up, start = draw(7), draw(4), draw(3)
    call = lambda role, slot, turn, prompt, response, advantage: dict(
        role=role, slot=slot, turn=turn, prompt=prompt, response=response, advantage=advantage)
    return [
        call("generator", 0, 0, question, start + draw(3), 1.25),
        call("generator", 1, 0, question, start + draw(2), -0.5),
        call("generator", 2, 0, question, draw(5), 0.0),
        call("generator", 10, 0, question + follow_up, draw(4), -1.0),
        call("aggregator", 0, 1, question + follow_up, start, 0.75),
        call("generator", 0, 1, question + follow_up, start + draw(1), 0.5),
        call("aggregator", 0, 1, question + draw(5), draw(1), -2.0),
    ]


def layer_of(name: str) -> str:
    parts = name.split(".")
    return parts[2] if parts[1] == "layers" else "-1"


def gradient(model, calls: list[dict], tokens: int) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss = torch.zeros((), dtype=torch.float64)
    for call in calls:
        ids = torch.tensor([call["prompt"] + call["response"]])
        logits = model(input_ids=ids).logits[0, len(call["prompt"]) - 1 : -1]
        log_p = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
        loss = loss - call["advantage"] * log_p.gather(1, torch.tensor(call["response"])[:, None]).sum() / tokens
    loss.backward()
    return {name: p.grad.double() for name, p in model.named_parameters()}


def products(gradients: list[dict[str, torch.Tensor]], names: list[str]) -> dict:
    flat = torch.stack([torch.cat([g[name].flatten() for name in names]) for g in gradients])
    gram = flat @ flat.T
    return dict(norm=gram.diagonal().sqrt().tolist(), gram=gram.tolist())


def measure(model, calls: list[dict], by: list[str]) -> dict:
    tokens = sum(len(call["response"]) for call in calls)
    keys = sorted({tuple(call[key] for key in by) for call in calls})
    members = [[call for call in calls if tuple(call[key] for key in by) == group] for group in keys]
    gradients = [gradient(model, group, tokens) for group in members]
    names = list(gradients[0])
    whole = gradient(model, calls, tokens)
    part = lambda of: {
        value: products(gradients, [name for name in names if of(name) == value]) for value in sorted({of(n) for n in names})
    }
    return dict(
        groups=["/".join(map(str, key)) for key in keys],
        **products(gradients, names),
        total_norm=torch.cat([g.flatten() for g in whole.values()]).norm().item(),
        tokens=[sum(len(call["response"]) for call in group) for group in members],
        module=part(lambda name: KINDS.get(name.split(".")[-2], "norm")),
        layer=part(layer_of),
    )


def load(dtype):
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=dtype, attn_implementation="eager").eval()


OUT.mkdir(exist_ok=True)
calls = recorded_calls()
(OUT / "calls.jsonl").write_text("".join(json.dumps(call) + "\n" for call in calls))
for name, dtype in (("expected", torch.float64), ("bfloat16", torch.bfloat16)):
    model = load(dtype)
    groupings = (["role"], ["role", "slot"], ["role", "slot", "turn"], ["turn"])
    values = {",".join(by): measure(model, calls, by) for by in groupings}
    (OUT / f"{name}.json").write_text(json.dumps(values) + "\n")
