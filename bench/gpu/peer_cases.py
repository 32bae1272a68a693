"""The cases of peer.py: transformers + PEFT on one device. Prints a row for each case as it is measured, one JSON object a line.

Weights are bf16 (LoRA's matrices fp32, as PEFT makes them), attention is PyTorch's fused one. The loss is the clipped
policy gradient over log-probabilities of response tokens, as TRL computes them.
"""

import argparse
import json
import os
import pathlib
import time
import traceback

import torch
import transformers
from transformers import Qwen3Config, Qwen3ForCausalLM

STEPS = json.loads((pathlib.Path(__file__).parent / "steps.json").read_text())
LENGTH = 512
PROMPT = 256
SHAPES = {
    # hidden, intermediate, layers, heads, key-value heads, head_dim, vocabulary
    "0.6b": (1024, 3072, 28, 16, 8, 128, 151936),
    "1.7b": (2048, 6144, 28, 16, 8, 128, 151936),
    "4b": (2560, 9728, 36, 32, 8, 128, 151936),
    "tiny": (64, 128, 2, 4, 2, 16, 512),
}


def make_model(shape: str, device: str) -> Qwen3ForCausalLM:
    hidden, intermediate, layers, heads, kv_heads, head_dim, vocabulary = SHAPES[shape]
    config = Qwen3Config(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=vocabulary,
        tie_word_embeddings=True,
        max_position_embeddings=8192,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    config._attn_implementation = "sdpa"
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            return Qwen3ForCausalLM(config)
    finally:
        torch.set_default_dtype(before)


def with_parameters(model: Qwen3ForCausalLM, parameters: str):
    """The model to train, and how: `full` or `rN`, `-checkpointed` with activations computed again."""
    kind, _, checkpointed = parameters.partition("-")
    if checkpointed:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    if kind != "full":
        from peft import LoraConfig, get_peft_model

        rank = int(kind[1:])
        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        model = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets, bias="none"))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return model, torch.optim.AdamW(trained, lr=1e-6, fused=trained[0].is_cuda)


def loss_of(model, ids, mask, response, advantages):
    """Clipped policy gradient over the last `response` tokens of every row; old log-probabilities are the own ones."""
    with torch.autocast(ids.device.type, torch.bfloat16):
        logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=response + 1).logits[:, :-1]
    targets = ids[:, -response:]
    chosen = logits.gather(-1, targets[..., None]).squeeze(-1).float()
    # Row by row, as TRL's selective_log_softmax: fp32 copies of all logits would not fit.
    logprobs = chosen - torch.stack([torch.logsumexp(row.float(), -1) for row in logits])
    ratio = (logprobs - logprobs.detach()).exp()
    return -(torch.minimum(ratio * advantages[:, None], ratio.clamp(0.8, 1.2) * advantages[:, None])).mean()


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


def clock(device):
    synchronize(device)
    return time.perf_counter()


def peak(device):
    return torch.cuda.max_memory_allocated() if device == "cuda" else None


def train_pass(model, optimizer, batches):
    optimizer.zero_grad(set_to_none=True)
    for ids, mask, response, advantages in batches:
        loss_of(model, ids, mask, response, advantages).backward()
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
    optimizer.step()


def train(device, shape, parameters, tokens):
    model, optimizer = with_parameters(make_model(shape, device), parameters)
    rows = int(tokens) // LENGTH
    ids = torch.randint(1, SHAPES[shape][-1], (rows, LENGTH), device=device)
    advantages = torch.randn(rows, device=device)
    batch = [(ids, torch.ones_like(ids), LENGTH - PROMPT, advantages)]
    seconds = []
    for _ in range(5):
        start = clock(device)
        train_pass(model, optimizer, batch)
        seconds.append(clock(device) - start)
    median = sorted(seconds[2:])[1]
    return {"seconds": median, "tokens_per_second": rows * LENGTH / median, "peak_bytes": peak(device)}


@torch.no_grad()
def decode(device, shape, sequences):
    model = make_model(shape, device).eval()
    ids = torch.randint(1, SHAPES[shape][-1], (int(sequences), PROMPT), device=device)

    def seconds(new):
        start = clock(device)
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=new, min_new_tokens=new, do_sample=True, top_k=0)
        return clock(device) - start

    seconds(2)
    few, many = seconds(4), seconds(28)
    step = (many - few) / 24
    return {"step_seconds": step, "tokens_per_second": int(sequences) / step, "peak_bytes": peak(device)}


def sampled(model, ids, mask, new):
    model.eval()
    with torch.no_grad():
        return model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=new, min_new_tokens=new, do_sample=True, top_k=0
        )


def warm_up(model, optimizer, vocabulary, device):
    """What a first pass and a first decode step cost beside the work itself."""
    ids = torch.randint(1, vocabulary, (8, LENGTH), device=device)
    sampled(model, ids[:, :PROMPT], torch.ones_like(ids[:, :PROMPT]), 2)
    model.train()
    train_pass(model, optimizer, [(ids, torch.ones_like(ids), LENGTH - PROMPT, torch.randn(8, device=device))])


def train_on(model, optimizer, parts, pass_tokens):
    """One update on (sequences, response tokens) pairs, in passes of `pass_tokens` tokens."""
    model.train()
    batches = []
    for sequences, response in parts:
        for part in sequences.split(max(1, pass_tokens // sequences.shape[1])):
            batches.append((part, torch.ones_like(part), response, torch.randn(len(part), device=part.device)))
    train_pass(model, optimizer, batches)


def step_row(device, start, generated, parts):
    end = clock(device)
    return {
        "seconds": end - start,
        "generation": generated - start,
        "training": end - generated,
        "tokens_seen": sum(sequences.numel() for sequences, _ in parts),
        "peak_bytes": peak(device),
    }


def grpo(device, shape, parameters, prompts):
    """A step as TRL takes it: sample, then one update; every sample a row of its own."""
    setting = STEPS["grpo"]
    vocabulary = SHAPES[shape][-1]
    model, optimizer = with_parameters(make_model(shape, device), parameters)
    warm_up(model, optimizer, vocabulary, device)
    start = clock(device)
    asked = torch.randint(1, vocabulary, (int(prompts), setting["prompt"]), device=device)
    asked = asked.repeat_interleave(setting["episodes"], 0)
    parts = [(sampled(model, asked, torch.ones_like(asked), setting["response"]), setting["response"])]
    generated = clock(device)
    train_on(model, optimizer, parts, setting["pass_tokens"])
    return step_row(device, start, generated, parts)


def voting(device, shape, parameters, tasks):
    """Voters, then aggregators that read them, then one update; every call a row of its own."""
    setting = STEPS["voting"]
    vocabulary = SHAPES[shape][-1]
    model, optimizer = with_parameters(make_model(shape, device), parameters)
    warm_up(model, optimizer, vocabulary, device)
    episodes = int(tasks) * setting["episodes"]
    start = clock(device)
    prompts = torch.randint(1, vocabulary, (int(tasks), setting["prompt"]), device=device)
    asked = prompts.repeat_interleave(setting["episodes"] * setting["voters"], 0)
    votes = sampled(model, asked, torch.ones_like(asked), setting["response"])
    answers = votes[:, setting["prompt"] :].reshape(episodes, -1)
    own = prompts.repeat_interleave(setting["episodes"], 0)
    instructions = torch.randint(1, vocabulary, (1, setting["aggregator"]), device=device).expand(episodes, -1)
    asked = torch.cat([own, answers, instructions], 1)
    decisions = sampled(model, asked, torch.ones_like(asked), setting["decision"])
    generated = clock(device)
    parts = [(votes, setting["response"]), (decisions, setting["decision"])]
    train_on(model, optimizer, parts, setting["pass_tokens"])
    return step_row(device, start, generated, parts)


CASES = {"train": train, "decode": decode, "grpo": grpo, "voting": voting}
# How a process ends whose row is written, but whose device answers nothing any more (peer.py).
DEVICE_LOST = 3


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="+")
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    for case in arguments.cases:
        name, *rest = case.split(":")
        row = {"program": f"transformers {transformers.__version__} + PEFT", "case": case}
        if arguments.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            row.update(CASES[name](arguments.device, *rest))
        except Exception as error:  # one case must not take the others with it
            row["error"] = f"{type(error).__name__}: {str(error)[:300]}"
            traceback.print_exc()
        print(json.dumps(row), flush=True)
        if "CUDA error" in row.get("error", ""):
            os._exit(DEVICE_LOST)


if __name__ == "__main__":
    main()
