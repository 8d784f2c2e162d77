"""All benchmarks by name, and what others reached on them."""

from mmtune.evaluate.benchmarks.benchmark import (
    OPTION_LETTER,
    OPTION_LETTER_CN,
    SHORT_ANSWER,
    Benchmark,
    Published,
)
from mmtune.evaluate.benchmarks.choices import choice_credit, read_choices, score_choices
from mmtune.evaluate.benchmarks.mmbench import read_mmbench, read_mmbench_cn, score_mmbench
from mmtune.evaluate.benchmarks.scienceqa import read_scienceqa, scienceqa_credit, score_scienceqa
from mmtune.evaluate.benchmarks.texts import read_texts, score_texts, text_credit
from mmtune.evaluate.benchmarks.vqa import (
    gqa_credit,
    read_gqa,
    read_textvqa,
    read_vqav2,
    score_gqa,
    score_textvqa,
    score_vqav2,
    textvqa_credit,
    vqav2_credit,
)
from mmtune.evaluate.benchmarks.yes_no import mme_credit, pope_credit, read_mme, read_pope, score_mme, score_pope

LLAVA = "arXiv:2310.03744"
FACTORY = "TinyLLaVA Factory"


def _neighbours(
    metric: str, llava_7b: float, llava_13b: float, small: float | None = None, note: str = ""
) -> tuple[Published, ...]:
    """What models of this design reached; `small` is the one of StableLM-2-1.6B, the nearest to a model of 1.8B."""
    rows = [
        Published("LLaVA-1.5-7B", metric, llava_7b, LLAVA, note),
        Published("LLaVA-1.5-13B", metric, llava_13b, LLAVA, note),
    ]
    if small is not None:
        rows.insert(0, Published("StableLM-2-Zephyr-1.6B, CLIP-L/14-336", metric, small, FACTORY, note))
    return tuple(rows)


BENCHMARKS = {
    "pope": Benchmark(
        "POPE",
        read_pope,
        pope_credit,
        score_pope,
        SHORT_ANSWER,
        "val2014",
        "arXiv:2305.10355",
        _neighbours("mean F1", 85.9, 85.9, 86.1),
    ),
    "mme": Benchmark(
        "MME",
        read_mme,
        mme_credit,
        score_mme,
        SHORT_ANSWER,
        ".",
        "arXiv:2306.13394",
        _neighbours("perception", 1510.7, 1531.3, 1368.1),
    ),
    "scienceqa": Benchmark(
        "ScienceQA-IMG",
        read_scienceqa,
        scienceqa_credit,
        score_scienceqa,
        OPTION_LETTER,
        "images",
        "arXiv:2209.09513",
        _neighbours("accuracy", 66.8, 71.6, 64.6),
    ),
    "mmbench": Benchmark(
        "MMBench",
        read_mmbench,
        choice_credit,
        score_mmbench,
        OPTION_LETTER,
        None,
        "arXiv:2307.06281",
        _neighbours("accuracy", 64.3, 67.7, note="dev split, with a judge for unclear answers"),
    ),
    "mmbench_cn": Benchmark(
        "MMBench-CN",
        read_mmbench_cn,
        choice_credit,
        score_mmbench,
        OPTION_LETTER_CN,
        None,
        "arXiv:2307.06281",
        _neighbours("accuracy", 58.3, 63.6, note="dev split, with a judge for unclear answers"),
    ),
    "gqa": Benchmark(
        "GQA",
        read_gqa,
        gqa_credit,
        score_gqa,
        SHORT_ANSWER,
        "images",
        "arXiv:1902.09506",
        _neighbours("accuracy", 62.0, 63.3, 59.5),
    ),
    "textvqa": Benchmark(
        "TextVQA",
        read_textvqa,
        textvqa_credit,
        score_textvqa,
        SHORT_ANSWER,
        "train_images",
        "arXiv:1904.08920",
        _neighbours("accuracy", 58.2, 61.3, 50.5),
    ),
    "vqav2": Benchmark(
        "VQAv2",
        read_vqav2,
        vqav2_credit,
        score_vqav2,
        SHORT_ANSWER,
        "val2014",
        "arXiv:1612.00837",
        _neighbours("accuracy", 78.5, 80.0, 75.9, note="test-dev split, scored by its server"),
    ),
    "multiple_choice": Benchmark(
        "Multiple choice",
        read_choices,
        choice_credit,
        score_choices,
        OPTION_LETTER,
        ".",
        "docs/eval.md",
    ),
    "perplexity": Benchmark("Perplexity", read_texts, text_credit, score_texts, "", None, "docs/text.md"),
}
"""The name after `--benchmark` -> the benchmark."""
