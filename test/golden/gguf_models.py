"""Tiny GGUF files with what the gguf package and transformers make of them.

Writes gguf/blocks.gguf, one tensor of each type that Troupe reads, with gguf's own dequantisation in
blocks.safetensors; and gguf/llama.gguf (Q8_0, Q4_0, Q4_1, F16, F32; q and k permuted as llama.cpp's converter does)
and gguf/qwen3.gguf (BF16, F32), models whose log-probabilities by transformers, on the dequantised weights, are in
gguf/expected.json.

    python test/golden/gguf_models.py        gguf 0.19, torch 2.13, transformers 5.17
"""

import json
import pathlib

import numpy as np
import torch
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter, TokenType, quants
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

OUT = pathlib.Path(__file__).parent / "gguf"
IDS = [[3, 17, 42, 8, 25, 60, 1, 33, 9, 12], [5, 5, 40, 2]]
SIZES = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, head_dim=8, vocab_size=64, max_position_embeddings=64, rms_norm_eps=1e-5)
NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}
TYPES = {
    "llama": {"attn_q": Type.Q8_0, "attn_k": Type.Q4_1, "attn_v": Type.Q4_0, "attn_output": Type.Q4_1,
              "ffn_gate": Type.F16, "ffn_up": Type.Q4_1, "ffn_down": Type.Q8_0, "token_embd": Type.Q8_0},
    "qwen3": {name: Type.BF16 for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up",
                                           "ffn_down", "token_embd", "output")},
}


def gguf_name(name: str) -> str:
    top = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
           "lm_head.weight": "output.weight"}
    if name in top:
        return top[name]
    _, _, layer, *module, kind = name.split(".")
    return f"blk.{layer}.{NAMES['.'.join(module)]}.{kind}"


def permute(weights: np.ndarray, heads: int) -> np.ndarray:
    """As convert_hf_to_gguf.py's LlamaModel.permute."""
    return weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)


def unpermute(weights: np.ndarray, heads: int) -> np.ndarray:
    return weights.reshape(heads, weights.shape[0] // heads // 2, 2, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)


def add_tensor(writer: GGUFWriter, name: str, values: np.ndarray, kind: Type) -> np.ndarray:
    """Writes the values quantised; returns what they are when read back."""
    data = quants.quantize(values, kind)
    if kind in (Type.F32, Type.F16):
        writer.add_tensor(name, data)
    else:
        writer.add_tensor(name, data, raw_dtype=kind)
    return quants.dequantize(data, kind).reshape(values.shape).astype(np.float32)


def add_tokenizer(writer: GGUFWriter, pre: str) -> None:
    """Three control tokens, single characters, one merge; enough that the file is whole."""
    characters = [chr(c) for c in range(33, 33 + 58)]
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *characters]
    merges = ["A B", "C D", "AB CD"]
    tokens += ["AB", "CD", "ABCD"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL] * 3 + [TokenType.NORMAL] * 61)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{% for message in messages %}{{ message['content'] }}{% endfor %}")


def write_model(family: str, config, model_class) -> list[list[float]]:
    torch.manual_seed(3)
    model = model_class(config).float().eval()
    writer = GGUFWriter(OUT / f"{family}.gguf", family)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    add_tokenizer(writer, {"llama": "smollm", "qwen3": "qwen2"}[family])
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape)
        values = (1 + 0.2 * noise if "norm" in name else 0.3 * noise).numpy()
        short = gguf_name(name)
        part = short.split(".")[-2]
        kind = TYPES[family].get(part, Type.F32)
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(part)
        if family == "llama" and heads:
            values = unpermute(add_tensor(writer, short, permute(values, heads), kind), heads)
        else:
            values = add_tensor(writer, short, values, kind)
        parameter.data = torch.from_numpy(np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model.tie_weights()
    logprobs = []
    with torch.no_grad():
        for ids in IDS:
            log_p = model(input_ids=torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
            logprobs.append(log_p.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist())
    return logprobs


def write_blocks() -> None:
    writer = GGUFWriter(OUT / "blocks.gguf", "blocks")
    values = np.random.default_rng(5).normal(size=(3, 64)).astype(np.float32)
    values[0, :32] = 0  # a block whose scale is zero
    values[1, 3] = 40000  # and one whose scale is large
    values[2] *= 1e-6  # and scales below half precision's normal range
    kinds = (Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q4_1)
    read = {kind.name: torch.from_numpy(np.ascontiguousarray(add_tensor(writer, kind.name, values, kind))) for kind in kinds}
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(read, OUT / "blocks.safetensors")


OUT.mkdir(exist_ok=True)
write_blocks()
rope = dict(rope_type="default", rope_theta=5e4)
expected = dict(
    ids=IDS,
    llama=write_model("llama", LlamaConfig(**SIZES, rope_parameters=rope, tie_word_embeddings=True), LlamaForCausalLM),
    qwen3=write_model("qwen3", Qwen3Config(**SIZES, rope_parameters=rope, tie_word_embeddings=False), Qwen3ForCausalLM),
)
(OUT / "expected.json").write_text(json.dumps(expected) + "\n")
