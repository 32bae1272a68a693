"""GRPO steps of TRL's GRPOTrainer on the CPU, timed. Prints JSON.

Full parameters, AdamW, mixed precision: TRL keeps fp32 weights (its default) and computes in bf16 under autocast,
which is what the other side's bf16 weights with fp32 masters are compared with. `--dtype bfloat16` has bf16 weights
alone, faster and with another arithmetic; `--micro-batch` and `--checkpointing` are TRL's own ways to
trade memory for time. Response lengths are forced: the end token is impossible before a sample's length, and
certain there. Rewards are random, so that advantages are not zero.

What it is compared with and how often: bench/grpo.mjs.
"""

import argparse
import json
import os
import random
import resource
import tempfile
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import datasets
import torch
import transformers
import trl

class ForcedLengths(transformers.LogitsProcessor):
    """Ends row i of a batch after exactly `lengths[i]` response tokens, the end token included."""

    def __init__(self, prompt_length, lengths, end, pad):
        self.prompt_length = prompt_length
        self.last = torch.tensor(lengths) - 1
        self.end, self.pad = end, pad

    def __call__(self, input_ids, scores):
        ends = self.last <= input_ids.shape[1] - self.prompt_length
        scores[:, [self.end, self.pad]] = float("-inf")
        scores[ends] = float("-inf")
        scores[ends, self.end] = 0.0
        return scores


class Stopwatch(transformers.TrainerCallback):
    """Seconds of each step, of its generation, and of the rest."""

    def __init__(self, model, lengths, prompt_tokens):
        self.steps = []
        self.prompt_tokens = prompt_tokens
        self.lengths = lengths
        self.generated = 0.0
        self.generate = model.generate
        model.generate = self.timed_generate

    def timed_generate(self, **inputs):
        start = time.perf_counter()
        config = inputs["generation_config"]
        assert inputs["input_ids"].shape[1] == self.prompt_tokens, "prompts have another length"
        forced = ForcedLengths(
            inputs["input_ids"].shape[1], self.lengths[len(self.steps)], config.eos_token_id, config.pad_token_id
        )
        output = self.generate(**inputs, logits_processor=transformers.LogitsProcessorList([forced]))
        self.generated += time.perf_counter() - start
        return output

    def on_step_begin(self, args, state, control, **kwargs):
        # The first batch is prepared before this; the previous step's end is the start of the next.
        self.started = getattr(self, "ended", self.started_training)

    def on_train_begin(self, args, state, control, **kwargs):
        self.started_training = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        self.ended = time.perf_counter()
        seconds = self.ended - self.started
        self.steps.append({"seconds": seconds, "generation": self.generated, "training": seconds - self.generated})
        self.generated = 0.0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder that make_model.py wrote")
    parser.add_argument("--lengths", required=True, help="JSON file: response lengths [steps][prompts * samples]")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--warmup", type=int, default=1, help="first steps that are not counted")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of the weights")
    parser.add_argument("--compute", choices=["float32", "bfloat16"], default="bfloat16", help="of products (autocast)")
    parser.add_argument("--micro-batch", type=int, default=8, help="sequences of one forward and backward")
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations to save memory")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    with open(arguments.lengths) as file:
        lengths = json.load(file)
    sequences = arguments.prompts * arguments.samples
    if any(len(step) != sequences for step in lengths):
        parser.error(f"--lengths needs {sequences} lengths for each step")
    longest = max(max(step) for step in lengths)

    model = transformers.AutoModelForCausalLM.from_pretrained(arguments.model, dtype=getattr(torch, arguments.dtype))
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.model)
    size = model.config.vocab_size
    draw = random.Random(0)
    prompts = [
        # Tokens 0 and 1 are the end and the padding.
        " ".join(str(draw.randrange(2, size)) for _ in range(arguments.prompt_tokens))
        for _ in range(arguments.prompts * len(lengths))
    ]
    stopwatch = Stopwatch(model, lengths, arguments.prompt_tokens)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trl.GRPOTrainer(
            model=model,
            processing_class=tokenizer,
            reward_funcs=lambda completions, **_: [draw.random() for _ in completions],
            train_dataset=datasets.Dataset.from_dict({"prompt": prompts}),
            callbacks=[stopwatch],
            args=trl.GRPOConfig(
                output_dir=folder,
                use_cpu=True,
                bf16=arguments.compute == "bfloat16",
                max_steps=len(lengths),
                per_device_train_batch_size=arguments.micro_batch,
                gradient_accumulation_steps=sequences // arguments.micro_batch,
                num_generations=arguments.samples,
                max_completion_length=longest,
                temperature=1.0,
                beta=0.0,
                learning_rate=1e-6,
                lr_scheduler_type="constant",
                optim="adamw_torch",
                max_grad_norm=1.0,
                gradient_checkpointing=arguments.checkpointing,
                save_strategy="no",
                report_to=[],
                logging_steps=1,
                disable_tqdm=True,
                dataloader_pin_memory=False,
                shuffle_dataset=False,
            ),
        )
        trainer.train()

    logged = [entry for entry in trainer.state.log_history if "completions/mean_length" in entry]
    for entry, forced in zip(logged, lengths, strict=True):
        found = entry["completions/mean_length"], entry["completions/max_length"]
        assert found == (sum(forced) / sequences, max(forced)), f"lengths {found} are not the forced ones"
        assert entry["grad_norm"] > 0, "no gradient: the step did less than a step does"
    counted = lengths[arguments.warmup :]
    print(
        json.dumps(
            {
                "program": f"TRL {trl.__version__}",
                "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
                "weights": arguments.dtype,
                "compute": arguments.compute,
                "micro_batch": arguments.micro_batch,
                "checkpointing": arguments.checkpointing,
                "threads": torch.get_num_threads(),
                "parameters": sum(p.numel() for p in model.parameters()),
                "steps": stopwatch.steps[arguments.warmup :],
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                # Each sequence by itself, without padding.
                "tokens_seen": [sum(step) + sequences * arguments.prompt_tokens for step in counted],
                # Rows of one pass over the batch: all padded to the longest of the step.
                "tokens_computed": [sequences * (arguments.prompt_tokens + max(step)) for step in counted],
            }
        )
    )


if __name__ == "__main__":
    main()
