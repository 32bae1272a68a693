"""Writes a model with random weights and a tokenizer of numbers, the same for every program that is measured.

Random weights change no timing, because response lengths are forced. Token i of the tokenizer is the word "i", so
that a prompt has exactly the tokens it should, without the time of a real tokenizer.
"""

import argparse
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

SHAPES = {
    # As HuggingFaceTB/SmolLM2-135M publishes it.
    "smollm2-135m": dict(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        tie_word_embeddings=True,
    ),
    # For trying the benchmarks out.
    "tiny": dict(
        vocab_size=512,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
    ),
}
END, PAD = 0, 1


def word_tokenizer(size):
    # Special tokens are found inside of words too, so their names have no digits.
    names = {END: "<end>", PAD: "<pad>"}
    words = {names.get(index, str(index)): index for index in range(size)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="2"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=names[END], pad_token=names[PAD], padding_side="left"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--shape", choices=SHAPES, default="smollm2-135m")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    shape = SHAPES[arguments.shape]
    config = transformers.LlamaConfig(bos_token_id=END, eos_token_id=END, pad_token_id=PAD, **shape)
    transformers.LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(arguments.folder)
    word_tokenizer(config.vocab_size).save_pretrained(arguments.folder)


if __name__ == "__main__":
    main()
