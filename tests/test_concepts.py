"""The numbers and the examples of docs/concepts are those of the code."""

import math
import re

import numpy as np
from readme import ROOT

from mmtune.conversation import IGNORE_INDEX, IMAGE_TOKEN_ID, Conversation, ImageSlot, Message
from mmtune.data.encode import encode
from mmtune.data.packing import pack
from mmtune.data.template import TEMPLATES
from mmtune.models.known_shapes import CLIP_L_336_SHAPE, INTERNLM2_SHAPE
from mmtune.models.loss import MAX_LOGITS
from mmtune.models.methods import METHODS

FOLDER = ROOT / "docs" / "concepts"
GIB = 2**30


def page(name):
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")


def layers():
    """Rows and columns of each linear layer of a block of InternLM2-1.8B."""
    width, inner = INTERNLM2_SHAPE["hidden_size"], INTERNLM2_SHAPE["intermediate_size"]
    heads, kv_heads = INTERNLM2_SHAPE["num_attention_heads"], INTERNLM2_SHAPE["num_key_value_heads"]
    keys = width * kv_heads // heads
    return [(width, width)] * 2 + [(keys, width)] * 2 + [(inner, width)] * 2 + [(width, inner)]


def test_the_numbers_of_lora():
    text, blocks = page("peft"), INTERNLM2_SHAPE["num_hidden_layers"]
    for rows, columns in layers():
        assert re.search(rf"\| {rows} x {columns} \| {64 * (rows + columns):,}", text), (rows, columns)
    dense, thin = (sum(sizes) for sizes in zip(*((m * n, 64 * (m + n)) for m, n in layers()), strict=True))
    assert f"| a block | {dense:,} | {thin:,} |" in text
    assert f"| {blocks} blocks | {dense * blocks:,} | {thin * blocks:,} |" in text
    drawing = (ROOT / "docs" / "drawings" / "lora.svg").read_text(encoding="utf-8")
    assert f"{2 * 64 * 2048:,} of {2048 * 2048:,} numbers train: {100 * 2 * 64 / 2048:.0f} %" in drawing
    assert f"W: {2048 * 2048 * 4.127 / 8 / 1e6:.1f} MB instead of {2048 * 2048 * 2 / 1e6:.1f} MB" in drawing
    told = set(re.findall(r"`(\w+)`", text.split("| family |")[1].split("\n\n")[0]))
    assert told >= set(METHODS) - {"lora"}


def test_the_numbers_of_memory():
    text, blocks = page("memory"), INTERNLM2_SHAPE["num_hidden_layers"]
    width, vocabulary = INTERNLM2_SHAPE["hidden_size"], INTERNLM2_SHAPE["vocab_size"]
    dense = blocks * sum(m * n for m, n in layers())
    thin = blocks * sum(64 * (m + n) for m, n in layers())
    tables, whole = 2 * width * vocabulary, 1_889_110_016
    assert dense + tables + width * (2 * blocks + 1) == whole
    for words in (
        f"{whole:,} weights. In float32, as weights that train are kept: {4 * whole / GIB:.2f} GiB. Gradients: "
        f"{4 * whole / GIB:.2f} GiB. AdamW: {8 * whole / GIB:.2f} GiB",
        f"| {blocks} blocks in NF4 | {dense:,} | 0.516 | {dense * 4.127 / 8 / GIB:.2f} |",
        f"| embeddings and head in bfloat16 | {tables:,} | 2 | {2 * tables / GIB:.2f} |",
        f"| LoRA, in float32 | {thin:,} | 4 | {4 * thin / GIB:.2f} |",
        f"| AdamW in 8 bits | {thin:,} | 2.03 | {2.03 * thin / GIB:.2f} |",
        f"= {blocks * 2048 * width * 2 / GIB:.2f} GiB, and each row",
        f"92,544 are {2048 * vocabulary * 4 / GIB:.2f} GiB in 32 bits",
        f"at most {MAX_LOGITS:,} numbers, {MAX_LOGITS * 4 / GIB:.2f} GiB",
    ):
        assert words in " ".join(text.split()), words
    together = dense * 4.127 / 8 + 2 * tables + (4 + 4 + 2.03) * thin
    assert f"| together | | | {together / GIB:.2f} |" in text


def test_the_numbers_of_the_image():
    text = page("llava")
    side = CLIP_L_336_SHAPE["image_size"] // CLIP_L_336_SHAPE["patch_size"]
    wide, width = CLIP_L_336_SHAPE["hidden_size"], INTERNLM2_SHAPE["hidden_size"]
    assert f"{side} x {side} = {side * side} vectors of width {wide}" in text
    assert f"{wide * width + width + width * width + width:,} parameters" in text


def test_what_is_supervised_is_what_the_page_marks(tokenizer):
    question = Message("user", (ImageSlot("cat.png"), "\nWhat is it?"))
    conversation = Conversation((question, Message("assistant", ("A cat.",))))
    sample = encode(conversation, TEMPLATES["internlm2_chat"], tokenizer, num_image_tokens=1)
    shown, marks = "", ""
    for token, label in zip(sample.input_ids, sample.labels, strict=True):
        text = "[image x 576]" if token == IMAGE_TOKEN_ID else tokenizer.decode([token]).replace("\n", r"\n")
        shown += text
        marks += ("-" if label == IGNORE_INDEX else "^") * len(text)
    assert f"```\n{shown}\n{marks}\n```" in page("loss"), f"\n{shown}\n{marks}"


def test_the_numbers_of_packing():
    text = " ".join(page("packing").split())
    rows = len(pack(np.full(1000, 100), 2048, seed=0))
    assert f"1,000 dialogues of 100 tokens are {rows} rows" in text
    assert f"an epoch is {math.ceil(rows / 16)} optimizer steps, where it would be {math.ceil(1000 / 16)}" in text
    lengths = np.array([5, 3, 7, 4, 2])  # A to E of the drawing
    packs = pack(lengths, 10, seed=0)
    assert sorted(sorted("ABCDE"[i] for i in packs[number]) for number in range(len(packs))) == [
        ["A", "D"],
        ["B", "C"],
        ["E"],
    ]
    drawing = (ROOT / "docs" / "drawings" / "packing.svg").read_text(encoding="utf-8")
    assert f"{5 * 7 - lengths.sum()} of" in drawing


def test_the_drawing_of_memory_has_the_figures_of_the_table():
    table = (ROOT / "docs" / "memory.md").read_text(encoding="utf-8").split("## The presets")[1]
    drawing = (ROOT / "docs" / "drawings" / "memory.svg").read_text(encoding="utf-8")
    for preset in ("665k_8gb", "665k_24gb", "qlora", "full"):
        row = next(line for line in table.splitlines() if f"{preset}`" in line)
        assert f">{row.split('|')[8].strip()}</text>" in drawing
