"""Tokenizers put together by chance, with the ids and texts of the Rust library on random texts.

    python test/golden/tokenizer_chance.py SEED KINDS TEXTS        tokenizers 0.23, for tokenizer-kinds.slow.test.ts

Prints what tokenizer_kinds.py prints. Characters are of Unicode 3.2 or emoji: the library's tables are of several later versions.
Left out: what the library refuses itself, and what makes it panic.
"""

import json
import random
import runpy
import sys
import unicodedata
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders as D, models, normalizers as N, pre_tokenizers as P, trainers

seed, kinds, count = map(int, sys.argv[1:4])
rng = random.Random(seed)
pick = rng.choice
sys.argv, sys.stdout = ["kinds"], open("/dev/null", "w")
known = runpy.run_path(str(Path(__file__).with_name("tokenizer_kinds.py")))
sys.stdout = sys.__stdout__


def chance(share=0.5):
    return rng.random() < share


BLOCKS = [(0x20, 0x7E)] * 8 + [(0xA0, 0x24F)] * 3 + [
    (0, 0x1F), (0x7F, 0xA0), (0x250, 0x36F), (0x370, 0x3FF), (0x400, 0x52F), (0x590, 0x6FF), (0x900, 0x97F), (0xE00, 0xFFF), (0x1100, 0x11FF),
    (0x1E00, 0x1FFF), (0x2000, 0x218F), (0x2190, 0x2BFF), (0x3000, 0x33FF), (0x4E00, 0x4FFF), (0xAC00, 0xACFF), (0xF900, 0xFDFF),
    (0xFE00, 0xFFFF), (0x10400, 0x1044F), (0x1D400, 0x1D7FF), (0x1F1E6, 0x1F1FF), (0x1F300, 0x1F6FF), (0x20000, 0x20020), (0xE0100, 0xE0110)]
NAMES = ["<s>", "</s>", "<|im_start|>", "<mask>", "single", "SINGLE", "The", "Straße", "é", "ﬁ", "  ", "\n", "[X]", "a b", "Σ", "<think>", "'s",
         "12", "日本", "🤖", "x\u0301", "_w_", "Ａ"]
EXPRESSIONS = [r"\w+|\s+", known["LLAMA3"], known["QWEN2"], known["O200K"], known["DEEPSEEK"], r"\d+", r"\s+", r"[^\w\s]+", r"\p{Han}", r"(?=\p{Lu})", r"\b",
               "a*", r"(?<=\d)(?=\D)", r"[\p{L}&&[^a]]+", r"\R", "[[:alpha:]]+", r"[^\r\n]+", ".", r"(\w)\1"]
BEHAVIORS = ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]
NORMALIZERS = [
    N.NFC, N.NFD, N.NFKC, N.NFKD, N.Lowercase, N.StripAccents, N.ByteLevel, lambda: N.Strip(chance(), chance()), lambda: N.Prepend(pick(["▁", "x "])),
    lambda: N.Replace(pick([" ", "the", "\n"]), pick(["▁", "", "$1", "xx"])), lambda: N.Replace(Regex(pick([r"\s+", "[0-9]", "(?i)the", r"^\s*", "$", r"\w+"])), pick(["▁", "$1"])),
    lambda: N.BertNormalizer(chance(), chance(), pick([None, True, False]), chance())]
PRE = [
    lambda: P.ByteLevel(chance(), use_regex=chance()), lambda: P.Metaspace("▁", pick(["always", "first", "never"]), split=chance()), P.Whitespace, P.WhitespaceSplit,
    P.BertPreTokenizer, lambda: P.Digits(chance()), lambda: P.Punctuation(pick(BEHAVIORS)), lambda: P.CharDelimiterSplit(pick("- a")),
    lambda: P.Split(pick(["the", " "]), pick(BEHAVIORS), chance(0.3)), lambda: P.Split(Regex(pick(EXPRESSIONS)), pick(BEHAVIORS), chance(0.3))]
DECODERS = [
    D.ByteLevel, lambda: D.Metaspace("▁", pick(["always", "first", "never"])), lambda: D.Replace(pick("▁Ġ"), pick([" ", ""])), D.ByteFallback, D.Fuse,
    lambda: D.Strip(" ", rng.randint(0, 2), rng.randint(0, 2)), lambda: D.WordPiece("##", chance()), lambda: D.BPEDecoder("</w>")]


def text():
    parts = []
    for _ in range(rng.randint(1, 25)):
        low, high = pick(BLOCKS)
        parts.append(pick([
            pick(known["ALPHABET"]), pick(known["ALPHABET"]), pick(known["WORDS"]), pick(NAMES), pick(" \n\t\r") * rng.randint(1, 4),
            "".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 5)))]))
    old = unicodedata.ucd_3_2_0
    return "".join(c for c in "".join(parts) if old.category(c) not in ("Cn", "Cs") or 0x1F300 <= ord(c) <= 0x1F6FF)


def model():
    special = known["SPECIAL"] + (known["BYTES"] if chance() else [])
    words = {key: value for key, value in (("continuing_subword_prefix", "##"), ("end_of_word_suffix", "</w>")) if chance(0.3)}
    quiet = {"show_progress": False}
    return pick([
        lambda: (models.BPE(ignore_merges=chance()), trainers.BpeTrainer(vocab_size=420, initial_alphabet=P.ByteLevel.alphabet(), **quiet), True),
        lambda: (models.BPE(unk_token="<unk>", fuse_unk=chance(), byte_fallback=chance(), **words),
                 trainers.BpeTrainer(vocab_size=600, special_tokens=special, limit_alphabet=pick([30, 60]), **words, **quiet), False),
        lambda: (models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=pick([5, 100])), trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]"], **quiet), False),
        lambda: (models.WordLevel(unk_token="<unk>"), trainers.WordLevelTrainer(special_tokens=special, **quiet), False),
        lambda: (models.Unigram(), trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>", **quiet), False),
    ])()


def tokenizer():
    kind, trainer, bytes_ = model()
    found = Tokenizer(kind)
    found.normalizer = N.Sequence([pick(NORMALIZERS)() for _ in range(pick([0, 0, 1, 2, 3]))])
    found.pre_tokenizer = P.Sequence([pick(PRE)() for _ in range(pick([0, 1, 2, 3]))] + ([P.ByteLevel(chance(), use_regex=chance())] if bytes_ else []))
    found.decoder = D.ByteLevel() if bytes_ else D.Sequence([pick(DECODERS)() for _ in range(pick([0, 1, 2, 3]))])
    found.train_from_iterator(known["CORPUS"], trainer)
    seen = set()
    for name in rng.sample(NAMES, rng.randint(0, 8)):
        token = AddedToken(name, single_word=chance(0.25), lstrip=chance(0.25), rstrip=chance(0.25), normalized=chance(0.4))
        sought = found.normalizer.normalize_str(name) if token.normalized else name
        # Two that are one: the library takes either. Nothing: it splits everywhere.
        if sought in seen or sought == "":
            continue
        seen.add(sought)
        (found.add_special_tokens if chance() else found.add_tokens)([token])
    return Tokenizer.from_str(found.to_str())


def answers(found, texts):
    for one in texts:
        ids = found.encode(one, add_special_tokens=False).ids
        yield ids, found.decode(ids, skip_special_tokens=False), found.decode(ids, skip_special_tokens=True)


texts = [text() for _ in range(count)]
result = {"kinds": {}, "texts": texts, "ids": {}, "decoded": {}, "skipped": {}}
while len(result["kinds"]) < kinds:
    name = f"chance-{seed}-{len(result['kinds'])}"
    try:
        found = tokenizer()
        all_ = list(answers(found, texts))
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        continue
    result["kinds"][name] = json.loads(found.to_str())
    result["ids"][name], result["decoded"][name], result["skipped"][name] = zip(*all_)
json.dump(result, sys.stdout, ensure_ascii=True)
