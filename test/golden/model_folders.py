"""Model folders in unusual layouts, and the log-probabilities that transformers reads out of them.

Writes folders/<case>/ (config.json and safetensors) and folders/expected.json: by case the log-probabilities of
IDS after its first token, in fp32, and the names that transformers did not read.

    python test/golden/model_folders.py        torch 2.13, transformers 5.24
"""

import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

HERE = pathlib.Path(__file__).parent / "folders"
IDS = [1, 5, 3, 15, 9, 2]
SHAPE = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, vocab_size=16, max_position_embeddings=32,
             num_attention_heads=2, num_key_value_heads=1, head_dim=4, initializer_range=0.5)


def model(seed, **settings):
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**SHAPE, **settings))


def write(case, source, tensors=None, files=None, change=None):
    folder = HERE / case
    folder.mkdir(parents=True)
    config = {**source.config.to_diff_dict(), "architectures": ["LlamaForCausalLM"], **(change or {})}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not ...}, indent=1) + "\n")
    for name, content in (files or {"model.safetensors": tensors}).items():
        if name.endswith(".json"):
            (folder / name).write_text(json.dumps(content) + "\n")
        else:
            save_file({k: v.contiguous().clone() for k, v in content.items()}, folder / name, metadata={"format": "pt"})


def weights(source, tied):
    state = dict(source.state_dict())
    if tied:
        del state["lm_head.weight"]
    return state


shutil.rmtree(HERE, ignore_errors=True)
tied, untied, other = model(0, tie_word_embeddings=True), model(1), model(2)
whole, bare = weights(untied, False), weights(tied, True)
index = {"metadata": {}, "weight_map": {name: "model-00001-of-00001.safetensors" for name in whole}}

write("left-over-index", untied, files={
    "model.safetensors": whole,
    "model.safetensors.index.json": index,
    "model-00001-of-00001.safetensors": weights(other, False),
})
write("index-without-shards", untied, files={"model.safetensors": whole, "model.safetensors.index.json": index})
write("sharded", untied, files={
    "model.safetensors.index.json": index,
    "model-00001-of-00001.safetensors": whole,
})
head = bare["model.embed_tokens.weight"]
write("tied-with-its-head", tied, {**bare, "lm_head.weight": head})
write("tied-with-another-head", tied, {**bare, "lm_head.weight": whole["lm_head.weight"]})
write("tied-by-the-head-alone",  tied,
      {**{k: v for k, v in bare.items() if k != "model.embed_tokens.weight"}, "lm_head.weight": head})
write("without-prefix", tied, {k.removeprefix("model."): v for k, v in bare.items()})
write("with-prefix-twice", untied, {f"model.{k}": v for k, v in whole.items()})
write("value-and-score-heads", untied, {
    **whole, "score.weight": torch.ones(1, 8), "v_head.summary.weight": torch.ones(1, 8), "v_head.summary.bias": torch.ones(1),
})
write("old-buffers", untied, {
    **whole, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(2), "model.rotary_emb.inv_freq": torch.ones(2),
})
write("both-scalings", untied, whole, change={
    "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
    "rope_scaling": {"type": "linear", "factor": 4.0}, "rope_theta": 50.0,
})
write("no-head-dim", untied, whole, change={"head_dim": ...})

torch.manual_seed(3)
qwen = Qwen3ForCausalLM(Qwen3Config(**{**SHAPE, "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 128,
                                       "hidden_size": 2, "intermediate_size": 2}, tie_word_embeddings=True))
write("qwen3-defaults", qwen, {k: v.bfloat16() for k, v in weights(qwen, True).items()}, change={
    "architectures": ["Qwen3ForCausalLM"], "head_dim": ..., "num_key_value_heads": ..., "num_attention_heads": 32,
    "tie_word_embeddings": True,
})

expected = {}
for folder in sorted(HERE.iterdir()):
    loaded, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    with torch.no_grad():
        logits = loaded.eval()(torch.tensor([IDS])).logits[0].double()
    chosen = logits.log_softmax(-1)[:-1].gather(1, torch.tensor(IDS[1:])[:, None])[:, 0]
    expected[folder.name] = {
        "logprobs": [round(x, 7) for x in chosen.tolist()],
        "unread": sorted(info["unexpected_keys"]),
    }
(HERE / "expected.json").write_text(json.dumps({"ids": IDS, "cases": expected}, indent=1) + "\n")
