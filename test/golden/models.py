"""Tiny random models of each family with what transformers and PEFT compute from them.

Writes models/<case>/: config.json and model.safetensors (bf16, so that fp32 and bf16 runs have the same weights)
as transformers saves them, expected.json (the native configuration, token ids, loss weights) and
expected.safetensors (log-probabilities, entropies, gradients; all from fp32 but where the name says bf16).
Cases with an adapter also have adapter.safetensors, with PEFT's names.

    python test/golden/models.py        torch 2.13, transformers 5.17, peft
"""

import copy
import json
import pathlib

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

HERE = pathlib.Path(__file__).parent / "models"
TEMPERATURE = 0.7
ENTROPY_WEIGHT = 0.3
PROMPT = 9  # tokens before the response in every sequence
LENGTHS = (30, 21)
SHAPE = dict(hidden_size=24, intermediate_size=20, num_hidden_layers=2, vocab_size=61, max_position_embeddings=64)

FAMILIES = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}

# name: (family, config, LoRA)
CASES = {
    "qwen3-tied": ("qwen3", dict(num_attention_heads=4, num_key_value_heads=2, head_dim=16, tie_word_embeddings=True), True),
    "qwen3-untied-yarn": (
        "qwen3",
        dict(num_attention_heads=4, num_key_value_heads=1, head_dim=8, tie_word_embeddings=False,
             rope_parameters=dict(rope_type="yarn", rope_theta=1e6, factor=4.0, original_max_position_embeddings=16)),
        False,
    ),
    "qwen2-tied": ("qwen2", dict(num_attention_heads=6, num_key_value_heads=2, tie_word_embeddings=True), True),
    "qwen2-untied": ("qwen2", dict(num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=False), False),
    "llama-tied-9-3": (
        "llama",
        dict(hidden_size=36, num_attention_heads=9, num_key_value_heads=3, head_dim=4, tie_word_embeddings=True,
             rope_parameters=dict(rope_type="default", rope_theta=1e5)),
        False,
    ),
    "llama-untied-bias-llama3": (
        "llama",
        dict(num_attention_heads=3, num_key_value_heads=3, tie_word_embeddings=False, attention_bias=True, mlp_bias=True,
             rope_parameters=dict(rope_type="llama3", rope_theta=5e5, factor=8.0, low_freq_factor=1.0,
                                  high_freq_factor=4.0, original_max_position_embeddings=32)),
        False,
    ),
    "llama-tied-linear": (
        "llama",
        dict(num_attention_heads=4, num_key_value_heads=1, head_dim=6, tie_word_embeddings=True,
             rope_parameters=dict(rope_type="linear", rope_theta=1e4, factor=2.0)),
        False,
    ),
}


def randomize(module: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        value = 1 + 0.2 * noise if "norm" in name else 0.25 * noise
        parameter.data.copy_(value.to(torch.bfloat16))


def native_config(model) -> dict:
    """The NativeModelConfig of src/engine/native.ts, with transformers' own frequencies."""
    config, rope = model.config, model.model.rotary_emb
    attention = model.model.layers[0].self_attn
    return dict(
        hiddenSize=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        kvHeads=config.num_key_value_heads,
        headDim=attention.head_dim,
        intermediateSize=config.intermediate_size,
        vocabularySize=config.vocab_size,
        maxPositions=config.max_position_embeddings,
        rmsNormEps=config.rms_norm_eps,
        tiedEmbeddings=config.tie_word_embeddings,
        qkvBias=attention.q_proj.bias is not None,
        outputBias=attention.o_proj.bias is not None,
        mlpBias=model.model.layers[0].mlp.down_proj.bias is not None,
        qkNorm=hasattr(attention, "q_norm"),
        inverseFrequencies=rope.inv_freq.double().tolist(),
        ropeScaling=float(rope.attention_scaling),
    )


def sequences() -> list[list[int]]:
    """Two sequences that share their first tokens, prompt and part of the response."""
    generator = torch.Generator().manual_seed(7)
    first, second = (torch.randint(0, SHAPE["vocab_size"], (n,), generator=generator).tolist() for n in LENGTHS)
    shared = PROMPT + 4
    return [first, first[:shared] + second[shared:]]


def evaluate(model, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities and entropies of every token after the prompt, sequence after sequence, in fp32."""
    logprobs, entropies = [], []
    for ids in sequences():
        logits = model(input_ids=torch.tensor([ids])).logits[0, PROMPT - 1 : -1].float() / temperature
        log_p = logits.log_softmax(-1)
        logprobs.append(log_p.gather(1, torch.tensor(ids[PROMPT:])[:, None])[:, 0])
        entropies.append(-(log_p.exp() * log_p).sum(-1))
    return torch.cat(logprobs), torch.cat(entropies)


def loss_weights() -> torch.Tensor:
    return torch.sin(torch.arange(sum(LENGTHS) - 2 * PROMPT, dtype=torch.float32) * 1.7)


def outputs_and_gradients(model, expected: dict[str, torch.Tensor], prefix: str) -> None:
    with torch.no_grad():
        expected[prefix + "logprobs"] = evaluate(model, 1.0)[0]
    model.zero_grad()
    logprobs, entropies = evaluate(model, TEMPERATURE)
    expected[prefix + "logprobs_at_temperature"] = logprobs.detach()
    expected[prefix + "entropy_at_temperature"] = entropies.detach()
    (loss_weights() @ logprobs + ENTROPY_WEIGHT * entropies.sum()).backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            expected[f"{prefix}gradient.{name.replace('.default', '')}"] = parameter.grad.clone()


def write_case(name: str, family: str, options: dict, lora: bool, seed: int) -> None:
    config_class, model_class = FAMILIES[family]
    torch.manual_seed(seed)
    model = model_class(config_class(**{**SHAPE, **options})).float().eval()
    randomize(model, seed)
    folder = HERE / name
    folder.mkdir(parents=True, exist_ok=True)
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    # Loaded rather than converted: conversion would round the rotary frequencies too.
    half = model_class.from_pretrained(folder, dtype=torch.bfloat16).eval()
    (folder / "generation_config.json").unlink(missing_ok=True)

    expected: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        expected["bf16.logprobs"] = evaluate(half, 1.0)[0]
    outputs_and_gradients(model, expected, "")
    description = dict(
        config=native_config(model), prompt=PROMPT, sequences=sequences(), temperature=TEMPERATURE,
        entropyWeight=ENTROPY_WEIGHT, lossWeights=loss_weights().double().tolist(),
    )
    if lora:
        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=6, target_modules=targets))
        generator = torch.Generator().manual_seed(seed + 100)
        weights = {}
        for parameter_name, parameter in adapted.named_parameters():
            if parameter.requires_grad:
                parameter.data.copy_((0.3 * torch.randn(parameter.shape, generator=generator)).to(torch.bfloat16))
                weights[parameter_name.replace(".default", "")] = parameter.data.to(torch.bfloat16).contiguous()
        save_file(weights, folder / "adapter.safetensors")
        outputs_and_gradients(adapted, expected, "lora.")
        description["adapter"] = dict(rank=4, alpha=6, targets=["q", "k", "v", "o", "gate", "up", "down"])
    save_file({key: value.contiguous() for key, value in expected.items()}, folder / "expected.safetensors")
    (folder / "expected.json").write_text(json.dumps(description) + "\n")


for index, (case, (family, options, lora)) in enumerate(CASES.items()):
    write_case(case, family, options, lora, seed=index + 1)
