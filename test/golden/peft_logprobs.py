"""Log-probabilities by transformers and PEFT, for peft.slow.test.ts: JSON in, JSON out."""

import json
import sys

import torch
from transformers import AutoModelForCausalLM

torch.set_num_threads(1)


def logprobs(model, ids):
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].float()
    return torch.log_softmax(logits, -1)[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()


request = json.load(sys.stdin)
results = {}
for name, folder in request["folders"].items():
    if name == "adapter":
        from peft import AutoPeftModelForCausalLM

        # As people load it: the base model from the adapter's own configuration.
        model = AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    else:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    results[name] = [logprobs(model.eval(), ids) for ids in request["ids"]]
print(json.dumps(results))
