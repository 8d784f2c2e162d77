"""Many texts at once, word by word where that is proven, and what a tokenizer puts before a text."""

import json
import os
import random
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import LlamaTokenizer, PreTrainedTokenizerFast

from mmtune.conversation import Conversation, Message
from mmtune.data.encode import control_ids, encode, text_ids
from mmtune.data.template import TEMPLATES
from mmtune.data.text_encoder import LONGEST_WORD, PARALLELISM, TextEncoder
from mmtune.data.word_boundaries import SPLITS, has_word_boundaries
from mmtune.errors import ConfigError
from mmtune.models.language import load_tokenizer
from mmtune.testing import byte_tokenizer

CORPUS = [
    "the cat sat on the mat, the cat's hat.  It's 12345 o'clock\n\n  now",
    "def f(x):\n    return x  # 猫 is\ta cat",
]
PIECES = [
    "the",
    "cat",
    " ",
    "  ",
    "\n",
    "\t",
    ".",
    ",",
    "'s",
    "12",
    "猫",
    "é",
    "e\u0301",
    "\u2581",
    "\u00a0",
    "<s>",
    "</s>",
]
PIECES += ["<|im_end|>", "<tool>", "a" * (LONGEST_WORD + 1), "", "\r\n", "It's", "\u3000", "😀", " \u0301"]


def byte_level(pre_tokenizer, normalizer=None):
    """A byte-level BPE with a few merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [
        ("t", "h"),
        ("th", "e"),
        ("Ġ", "the"),
        ("c", "a"),
        ("ca", "t"),
        ("Ġ", "cat"),
        ("Ċ", "Ċ"),
        ("Ġ", "Ġ"),
        ("1", "2"),
    ]
    vocabulary = {token: number for number, token in enumerate([*alphabet, *("".join(pair) for pair in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.normalizer = normalizer
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.add_tokens(["<tool>"])
    return fast


SPM_MERGES = [
    ("▁", "t"),
    ("▁t", "h"),
    ("▁th", "e"),
    ("c", "a"),
    ("ca", "t"),
    ("▁", "cat"),
    ("▁", "▁"),
    ("▁▁", "▁▁"),
    ("\n", "\n"),
]


def sentencepiece_parts(more=()):
    merges = [*SPM_MERGES, *more]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"tehcasonm.,'12", "\n"]
    tokens += ["".join(pair) for pair in merges]
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}, merges


def sentencepiece(normalizer=None, pre_tokenizer=None, more=()):
    """A BPE over whole texts as SentencePiece makes them."""
    vocabulary, merges = sentencepiece_parts(more)
    model = models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def llama():
    vocabulary, merges = sentencepiece_parts()
    return LlamaTokenizer(vocab=vocabulary, merges=merges)


def marked_spaces():
    return normalizers.Replace(" ", "▁")


def with_split(pattern):
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def gpt2():
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


BY_WORDS = {
    "gpt2": lambda: byte_level(gpt2()),
    "smollm2": lambda: byte_level(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2()])),
    "qwen2": lambda: byte_level(with_split(SPLITS[0]), normalizers.NFC()),
    "llama3": lambda: byte_level(with_split(SPLITS[1])),
    "internlm2": lambda: sentencepiece(normalizers.Sequence([marked_spaces()])),
    "llama": llama,
    "llama, legacy": lambda: sentencepiece(normalizers.Sequence([normalizers.Prepend("▁"), marked_spaces()])),
}
WHOLE = {
    "bytes without words": byte_tokenizer,
    "another split": lambda: byte_level(with_split(r"\p{L}+ | ")),
    "a prefix space": lambda: byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)),
    "a token over two words": lambda: sentencepiece(marked_spaces(), more=[("cat", "▁")]),
    "lower case": lambda: sentencepiece(normalizers.Sequence([normalizers.Lowercase(), marked_spaces()])),
    "whole words as they are": lambda: sentencepiece(marked_spaces(), pre_tokenizers.Whitespace()),
}


def random_texts(count, seed=0):
    rng = random.Random(seed)
    made = ["".join(rng.choices(PIECES, k=rng.randrange(12))) for _ in range(count)]
    return [*CORPUS, "", " ", "  ", " the", "the ", "\nthe cat", "the\n cat", "a  b", *made]


def values_of(tokenizer):
    return json.loads(tokenizer.backend_tokenizer.to_str())


@pytest.mark.parametrize("name", [*BY_WORDS, *WHOLE])
def test_ids_are_those_of_the_tokenizer_alone(name):
    tokenizer = (BY_WORDS | WHOLE)[name]()
    encoder = TextEncoder(tokenizer)
    texts = random_texts(3000)
    plain = Tokenizer.from_str(encoder._texts.to_str())  # without the dummy prefix
    plain.encode_special_tokens = True
    expected = [encoding.ids for encoding in plain.encode_batch(texts, add_special_tokens=False)]
    assert encoder.texts(texts) == expected
    random.Random(1).shuffle(pairs := list(zip(texts, expected, strict=True)))
    for start in range(0, len(pairs), 7):  # now with words that are known
        some = pairs[start : start + 7]
        assert encoder.texts([text for text, _ in some]) == [ids for _, ids in some]
    if encoder.prefix == "never":
        call = [
            tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"] for text in texts[:500]
        ]
        assert call == expected[:500]


@pytest.mark.parametrize("name", BY_WORDS)
def test_known_tokenizers_go_word_by_word(name):
    encoder = TextEncoder(BY_WORDS[name]())
    encoder.texts(["the cat sat", " the mat\n", "\nthe  end 猫"])
    assert {"cat", "sat"} <= set(encoder._later)
    assert not any(word.endswith("\n") or " " in word for word in (*encoder._first, *encoder._later))


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_not_proven_goes_whole(name):
    encoder = TextEncoder(WHOLE[name]())
    encoder.texts(CORPUS)
    assert not encoder._later


def test_threads_share_an_encoder():
    encoder = TextEncoder(BY_WORDS["internlm2"]())
    texts = random_texts(400)
    expected = TextEncoder(BY_WORDS["internlm2"]()).texts(texts)
    batches = [(texts[start::8], expected[start::8]) for start in range(8)] * 4
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(encoder.texts, [batch for batch, _ in batches]))
    assert found == [ids for _, ids in batches]


def test_an_added_token_with_spaces_is_no_proof():
    tokenizer = BY_WORDS["gpt2"]()
    assert has_word_boundaries(values_of(tokenizer))
    tokenizer.add_tokens([AddedToken("<wide>", lstrip=True, normalized=False)])
    assert not has_word_boundaries(values_of(tokenizer))


def test_internlm2_goes_word_by_word(fixtures_folder):
    tokenizer = load_tokenizer(str(fixtures_folder / "internlm2-tiny"))
    encoder = TextEncoder(tokenizer)
    golden = json.loads((fixtures_folder / "internlm2-tiny" / "tokenizer_golden.json").read_text())
    texts = [*random_texts(1000), *(case["text"] for case in golden["cases"])]
    expected = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert encoder.texts(texts) == expected
    assert encoder.texts(texts) == expected
    assert len(encoder._later) > 20


# ---------------------------------------------------------------- a space before a text


def turns_of(template_name, num_turns):
    sides = ("user", "assistant")
    talk = ["the cat", "sat on the mat", "the hat.", "the\nend", "cat,", "mat"]
    return [(sides[number % 2], text) for number, text in enumerate(talk[:num_turns])]


@pytest.mark.parametrize("name", ["llama", "llama, legacy"])
@pytest.mark.parametrize("template_name", ["vicuna", "llama2_chat", "mistral"])
def test_sentencepiece_reads_a_dialogue_as_one_text(name, template_name):
    """Spaces at the borders of pieces are tokenized as in the whole text, where a space is the start of a word."""
    tokenizer, template = BY_WORDS[name](), TEMPLATES[template_name]
    for num_turns in (1, 2, 3, 4, 6):
        turns = turns_of(template_name, num_turns)
        whole = template.render(turns, "<s>")
        messages = tuple(Message(role, (text,)) for role, text in turns)
        is_prompt = turns[-1][0] == "user"
        sample = encode(
            Conversation(messages), template, tokenizer, num_image_tokens=0, add_generation_prompt=is_prompt
        )
        assert sample.input_ids == tokenizer(whole, add_special_tokens=False)["input_ids"], whole


def test_a_line_end_is_one_token_behind_text():
    for name in ("llama", "llama, legacy"):
        assert len(control_ids("\n", BY_WORDS[name]())) == 1


def test_the_encoder_follows_tokens_that_are_added_later():
    tokenizer = byte_tokenizer()
    assert len(control_ids("<new>", tokenizer)) == 5
    tokenizer.add_special_tokens({"additional_special_tokens": ["<new>"]})
    assert len(control_ids("<new>", tokenizer)) == 1
    assert len(text_ids("<new>", tokenizer)) == 5


def test_a_slow_tokenizer_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(ConfigError) as caught:
        TextEncoder(Slow())
    assert str(caught.value) == (
        "model.llm.name_or_path: its tokenizer (Slow) has no fast form. Name a model with a tokenizer.json."
    )


# ---------------------------------------------------------------- all cores


@pytest.mark.parametrize("before", ["false", "true", None])
def test_the_environment_and_the_tokenizer_stay_as_they_were(monkeypatch, before):
    monkeypatch.delenv(PARALLELISM, raising=False)
    if before is not None:
        monkeypatch.setenv(PARALLELISM, before)
    tokenizer = byte_tokenizer()
    state = tokenizer.backend_tokenizer.to_str(), tokenizer.backend_tokenizer.encode_special_tokens
    TextEncoder(tokenizer).texts(CORPUS * 20)
    assert os.environ.get(PARALLELISM) == before
    assert (tokenizer.backend_tokenizer.to_str(), tokenizer.backend_tokenizer.encode_special_tokens) == state


def test_a_process_forked_later_prints_no_warning(monkeypatch, capfd):
    monkeypatch.setenv(PARALLELISM, "false")
    encoder = TextEncoder(byte_tokenizer())
    encoder.texts(CORPUS * 200)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        encoder.texts(CORPUS)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert "forked" not in capfd.readouterr().err


def test_preparing_data_needs_no_torch():
    modules = ["formats", "records", "encode", "choose_template"]
    script = ";".join(f"import mmtune.data.{name}" for name in modules)
    script += ";import sys; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
