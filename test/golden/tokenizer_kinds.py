"""Tokenizers of every kind that tokenizer.json can describe, with the ids and texts of the Rust library.

    python test/golden/tokenizer_kinds.py | gzip -9 > test/golden/tokenizer_kinds.json.gz   tokenizers 0.23: few texts
    python test/golden/tokenizer_kinds.py all                                               all texts, for the test
    python test/golden/tokenizer_kinds.py all FILE …                                        of these tokenizer.json

Prints {kinds: {NAME: tokenizer.json}, texts, ids: {NAME: […]}, decoded: {NAME: …}, skipped: {NAME: …}}: for each text its
ids without special tokens added, and their text with and without special tokens; null where the library refuses.
"""

import json
import random
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

WORDS = ("the of and to in is you that it he was for on are as with his they I at be this have from or one had by "
         "word but not what all were we when your can said there use an each which she do how their if will up "
         "other about out many then them these so some her would make like him into time has look two more write "
         "go see number no way could people my than first water been call who oil its now find long down day did "
         "get come made may part don't we'll it's I'm they've 12 345 6789 0 2024 3.14 naïve café Straße Москва "
         "日本語 中文 한국어 emoji 🤖 def return x = ( ) { } [ ] + - * / \\ , . ! ? ; : \n \n\n \t").split(" ")
rng = random.Random(0)
CORPUS = [" ".join(rng.choice(WORDS) for _ in range(12)) for _ in range(400)]

FIXED = [
    "", " ", "  ", "\n", "\t", "a", " a", "a ", "  a  b  ", "Hello, world!", "don't we'll I'M they'VE it's", "I'LL 'S 'ſ",
    "12345 + 6789 = 19134", "1,234,567.89 €", "3.14159e-10", "½ ² ① Ⅷ ٣ ४", "a1b22c333", "2024-11-26T11:00",
    "...!!!???", "a.b,c;d", "«quote» “quote” ‘q’", "$^+=~`|<>", "(a)[b]{c}", "naïve café e\u0301 A\u030a", "ﬁ ﬂ ﬀ Ａ１ ㎏",
    "İstanbul ΑΣ ΣΑΣ ß ẞ", "日本語のテキスト", "中文字符测试", "한국어 한국어", "Привет, мир", "مرحبا بالعالم", "हिन्दी", "ไทย",
    "👩‍👩‍👧 🤖🤖 🇩🇪", "def f(x):\n    return x**2  # c\n\n\n", "tabs\tand\r\nlines\n\n \n x", "\u00a0\u200b\ufeff\u2028\u3000x",
    "\u0085a\u001fb\u0000c", "x" * 70, " " * 40 + "x", "▁under▁score", "<s>", "</s>", "<s>a</s> b", "<unk><pad>",
    "a<mask>b", "a <mask> b", "  <mask>  ", "<think>x</think>", "<|im_start|>user\nhi<|im_end|>\n", "[CLS] a [SEP]",
    "<0x41><0x0A>", "##ing ing##", "Ġword Ċ", "the thethe THE The", "word</w> word", "\ufffd", "ab\ud7ff\ue000",
    "single word token", "xsingle singlex single.", "the\nsingle", "SINGLE Single", "A-B_C d_e", "a\u0301\u0302b", "\u200dzwj\u200c",
]
ALPHABET = ["a", "b", "the", "Th", " ", "  ", "\n", "\t", "1", "23", "'", "'s", "'LL", ".", ",", "-", "_", "é", "e\u0301", "ß", "中",
            "日本", "🤖", "‍", "<s>", "</s>", "<mask>", "single", "<think>", "▁", "Ġ", "²", "½", "٣", "\u00a0", "\u0085", "(", ")",
            "$", "Σ", "İ", "\r\n", "<0x41>", "##", "ſ", "\u0000", "한", "ㅎ", "\ufeff", "\u200b"]
TEXTS = FIXED + ["".join(rng.choice(ALPHABET) for _ in range(rng.randint(1, 14))) for _ in range(332 - len(FIXED))]

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?"
         r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|"
         r"\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK = (r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"""
            r"\s*[\r\n]+|\s+(?!\S)|\s+")
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
SPECIAL = ["<unk>", "<s>", "</s>", "<pad>"]


def trained(model, trainer, pre=None, normalizer=None, decoder=None, tokens=(), special=True):
    tokenizer = Tokenizer(model)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre is not None:
        tokenizer.pre_tokenizer = pre
    if decoder is not None:
        tokenizer.decoder = decoder
    tokenizer.train_from_iterator(CORPUS, trainer)
    if special:
        tokenizer.add_special_tokens(["<s>", "</s>", "<|im_start|>", "<|im_end|>"])
    tokenizer.add_tokens([AddedToken("<think>", normalized=False), AddedToken("</think>", normalized=False), *tokens])
    return tokenizer


def byte_bpe(pre, normalizer=None, tokens=(), **options):
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    return trained(models.BPE(**options), trainer, pre, normalizer, decoders.ByteLevel(), tokens)


def level(use_regex, prefix=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=use_regex)


def split(regex, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(regex), behavior, invert)


def sp_bpe(fallback, pre=None, normalizer=None, decoder=None, fuse=True, bytes_=True, tokens=(), **options):
    """SentencePiece's BPE: no byte level, spaces are ▁."""
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=SPECIAL + (BYTES if bytes_ else []), show_progress=False, limit_alphabet=60)
    return trained(models.BPE(unk_token="<unk>", fuse_unk=fuse, byte_fallback=fallback, **options), trainer, pre, normalizer, decoder, tokens, False)


def word_piece(normalizer, pre, **options):
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False)
    return trained(models.WordPiece(unk_token="[UNK]", **options), trainer, pre, normalizer, decoders.WordPiece(), special=False)


def unigram(pre, decoder, normalizer=None, fallback=False):
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=SPECIAL + (BYTES if fallback else []), unk_token="<unk>", show_progress=False)
    tokenizer = trained(models.Unigram(), trainer, pre, normalizer, decoder, special=False)
    if not fallback:
        return tokenizer
    state = json.loads(tokenizer.to_str())
    state["model"]["byte_fallback"] = True
    return Tokenizer.from_str(json.dumps(state))


SEQ, PRE, DEC = normalizers.Sequence, pre_tokenizers.Sequence, decoders.Sequence
LLAMA_DECODER = DEC([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
SPACES = normalizers.Replace(" ", "▁")
MASK = AddedToken("<mask>", lstrip=True, rstrip=True, normalized=False)
SINGLE = AddedToken("single", single_word=True)


def kinds():
    yield "gpt2", byte_bpe(level(True))
    yield "roberta", byte_bpe(level(True, prefix=True), tokens=[MASK])
    yield "smollm2", byte_bpe(PRE([pre_tokenizers.Digits(individual_digits=True), level(True)]))
    yield "qwen3", byte_bpe(PRE([split(QWEN2), level(False)]), normalizers.NFC())
    yield "llama3", byte_bpe(PRE([split(LLAMA3), level(False)]), ignore_merges=True)
    yield "o200k", byte_bpe(PRE([split(O200K), level(False)]))
    yield "deepseek", byte_bpe(PRE([split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK), level(False)]))
    yield "bloom", byte_bpe(PRE([split(" ?[^(\\s|[.,!?…。，、।۔،])]+"), level(False)]))
    yield "single-word", byte_bpe(level(True), tokens=[SINGLE, MASK])
    yield "normalized-tokens", byte_bpe(level(True), normalizers.Lowercase(), tokens=[AddedToken("SINGLE", normalized=True), AddedToken("Word", normalized=True, special=True), MASK])
    yield "nfkc-contractions", byte_bpe(PRE([split(QWEN2, "removed", True), level(False)]), SEQ([normalizers.NFKC(), normalizers.Lowercase()]))
    yield "punctuation-contiguous", byte_bpe(PRE([pre_tokenizers.Punctuation("contiguous"), level(False)]))
    yield "punctuation-previous", byte_bpe(PRE([pre_tokenizers.Punctuation("merged_with_previous"), level(False)]))
    yield "punctuation-next", byte_bpe(PRE([pre_tokenizers.Punctuation("merged_with_next"), level(False)]))
    yield "punctuation-removed", byte_bpe(PRE([pre_tokenizers.Punctuation("removed"), level(False)]))
    yield "digits-contiguous", byte_bpe(PRE([pre_tokenizers.Digits(individual_digits=False), level(True)]))
    yield "split-string", byte_bpe(PRE([pre_tokenizers.Split("the", "merged_with_next"), pre_tokenizers.Split(" ", "contiguous"), level(False)]))
    yield "split-empty-match", byte_bpe(PRE([split(r"(?=\p{Lu})|\d*"), level(False)]))
    yield "split-words", byte_bpe(PRE([split(r"\w+|[^\w\s]+"), split(r"\b"), level(False)]))
    yield "spaces", byte_bpe(level(True), tokens=[AddedToken("  ", lstrip=True, rstrip=True, normalized=False)])
    yield "llama2", sp_bpe(True, None, SEQ([normalizers.Prepend("▁"), SPACES]), LLAMA_DECODER)
    yield "llama2-no-fuse", sp_bpe(False, None, SEQ([normalizers.Prepend("▁"), SPACES]), LLAMA_DECODER, fuse=False)
    yield "llama2-few-bytes", sp_bpe(True, None, SEQ([normalizers.Prepend("▁"), SPACES]), LLAMA_DECODER, bytes_=False)
    yield "gemma", sp_bpe(True, pre_tokenizers.Split(" ", "merged_with_previous"), SPACES,
                          DEC([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]))
    yield "metaspace-first", sp_bpe(True, pre_tokenizers.Metaspace("▁", "first", split=False), None,
                                    DEC([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]), tokens=[MASK])
    yield "metaspace-always", sp_bpe(True, pre_tokenizers.Metaspace("▁", "always"), None, decoders.Metaspace("▁", "always"))
    yield "metaspace-never", sp_bpe(False, pre_tokenizers.Metaspace("▁", "never"), None, decoders.Metaspace("▁", "never"))
    yield "bpe-suffix", trained(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"),
                                trainers.BpeTrainer(vocab_size=500, special_tokens=SPECIAL, end_of_word_suffix="</w>", show_progress=False),
                                pre_tokenizers.Whitespace(), normalizers.Lowercase(), decoders.BPEDecoder("</w>"), special=False)
    yield "bpe-prefix", trained(models.BPE(unk_token="<unk>", continuing_subword_prefix="##"),
                                trainers.BpeTrainer(vocab_size=500, special_tokens=SPECIAL, continuing_subword_prefix="##", show_progress=False),
                                pre_tokenizers.WhitespaceSplit(), normalizers.Strip(True, True), decoders.WordPiece("##", False), special=False)
    yield "bert-uncased", word_piece(normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer())
    yield "bert-cased", word_piece(normalizers.BertNormalizer(lowercase=False, handle_chinese_chars=False), pre_tokenizers.BertPreTokenizer())
    yield "wordpiece-accents", word_piece(SEQ([normalizers.NFD(), normalizers.StripAccents()]), pre_tokenizers.Whitespace(), max_input_chars_per_word=9)
    yield "unigram", unigram(pre_tokenizers.Metaspace(), decoders.Metaspace())
    yield "unigram-bytes", unigram(pre_tokenizers.Metaspace(), DEC([decoders.ByteFallback(), decoders.Metaspace()]), fallback=True)
    yield "unigram-no-decoder", unigram(pre_tokenizers.WhitespaceSplit(), None, SEQ([normalizers.Replace(Regex(r"\s{2,}"), " "), normalizers.NFKD()]))
    yield "word-level", trained(models.WordLevel(unk_token="<unk>"), trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False),
                                PRE([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.CharDelimiterSplit("-")]), normalizers.NFD(), special=False)


def decoded(tokenizer, ids, skip):
    return None if ids is None else tokenizer.decode(ids, skip_special_tokens=skip)


def encoded(tokenizer, text):
    try:
        return tokenizer.encode(text, add_special_tokens=False).ids
    except Exception:
        return None


full = sys.argv[1:2] == ["all"]
files = sys.argv[2:]
found = {name: Tokenizer.from_file(name) for name in files} if files else dict(kinds())
for tokenizer in found.values():
    tokenizer.no_truncation()
    tokenizer.no_padding()
texts = TEXTS if full else [text for i, text in enumerate(TEXTS) if i % 9 == 0]
ids = {name: [encoded(tokenizer, text) for text in texts] for name, tokenizer in found.items()}
json.dump({
    "kinds": {name: None if files else json.loads(tokenizer.to_str()) for name, tokenizer in found.items()},
    "texts": texts,
    "ids": ids,
    "decoded": {name: [decoded(found[name], one, False) for one in ids[name]] for name in found},
    "skipped": {name: [decoded(found[name], one, True) for one in ids[name]] for name in found},
}, sys.stdout, ensure_ascii=True)
print()
