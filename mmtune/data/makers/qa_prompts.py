"""What a model is asked about an image, and how its answer is read.

The three styles are those of LLaVA (Liu et al. 2023, arXiv:2304.08485, section 3): conversation, detailed description
and complex reasoning; the wording is our own. No network and no files here.
"""

import json
import re
from typing import Any, NamedTuple

from mmtune.data.json_records import json_reason

STYLES = ("conversation", "detail", "reasoning")
LANGUAGES = ("en", "zh")
NUM_PAIRS = {"conversation": 3, "detail": 1, "reasoning": 1}
"""How many question-answer pairs are asked for, unless the user says."""

CONTROL_TOKEN = re.compile(r"<image>|<\|[^<>|\s]+\|>|</?s>|\[UNUSED_TOKEN_\d+\]|\[/?INST\]|<</?SYS>>", re.IGNORECASE)
_FORM = '{"pairs": [{"question": "...", "answer": "..."}]}'

SYSTEM_PROMPTS = {
    "en": f"You write training data about images. You answer with JSON alone, in the form {_FORM}, without any markup.",
    "zh": f"你为图像撰写训练数据。只输出 JSON，格式为 {_FORM}，不要任何其他文字或标记。所有问题和回答都用中文。",
}
PROMPTS = {
    ("conversation", "en"): (
        "Write a conversation about this image between a person who asks and an assistant who sees it, with exactly "
        "{count} questions and their answers. Ask about what is visible: which things there are, how many, what they "
        "do, where they are and how they relate. Ask only what the image answers with certainty, each question once. "
        "Answer in whole sentences, as if looking at the image."
    ),
    ("detail", "en"): (
        "Write exactly {count} requests, each worded differently, to describe this image in detail, each with a rich "
        "and complete description: things, their looks and number, places, actions, background, visible text. "
        "Describe only what can be seen."
    ),
    ("reasoning", "en"): (
        "Write exactly {count} questions about this image that need thought beyond naming what is seen, such as why "
        "something is so, what may happen next or what one should pay attention to. Each answer first says what in "
        "the image it rests on, then reasons step by step to a conclusion."
    ),
    ("conversation", "zh"): (
        "请围绕这张图片写一段对话，一方提问，另一方是看得到图片的助手，共 {count} 个问题及其回答，不多不少。"
        "问题针对可见的内容：有哪些物体、数量、动作、位置以及相互关系。只问能从图片中确定回答的问题，每个问题只问一次。"
        "用完整的句子回答，语气如同正在看这张图片。"
    ),
    ("detail", "zh"): (
        "请写 {count} 个措辞各不相同、要求详细描述这张图片的请求，不多不少，并为每个请求写出丰富而完整的描述："
        "物体及其外观和数量、位置、动作、背景、可见的文字。只描述看得到的内容。"
    ),
    ("reasoning", "zh"): (
        "请围绕这张图片写 {count} 个需要思考、而不只是说出所见之物的问题，不多不少，"
        "例如为什么会这样、接下来可能发生什么、应当注意什么。每个回答先说明依据图片中的哪些内容，再一步步推理得出结论。"
    ),
}


class Pair(NamedTuple):
    """A question and its answer."""

    question: str
    answer: str


def build_messages(style: str, language: str, count: int, image_uri: str) -> list[dict[str, Any]]:
    """Return the chat messages that ask for `count` pairs about one image, in OpenAI's form."""
    prompt = PROMPTS[style, language].format(count=count)
    content = [{"type": "text", "text": prompt}, {"type": "image_url", "image_url": {"url": image_uri}}]
    return [{"role": "system", "content": SYSTEM_PROMPTS[language]}, {"role": "user", "content": content}]


def parse_answer(text: str, count: int) -> list[Pair]:
    """Return the pairs in a model's answer. Thoughts before it and a code fence around it are left out.

    Raises:
        ValueError: with the reason, such as broken JSON, a wrong number of pairs, an empty or repeated text, or one
            that spells a control token.
    """
    values = _load(text)
    if isinstance(values, dict):
        lists = [value for value in values.values() if isinstance(value, list)]
        values = lists[0] if len(lists) == 1 else values
    if not isinstance(values, list):
        raise ValueError("the answer has no list of pairs")
    if len(values) != count:
        raise ValueError(f"{len(values)} pairs in the answer, {count} were asked for")
    pairs = [_pair(value, number) for number, value in enumerate(values, 1)]
    if len({pair.question.casefold() for pair in pairs}) < count:
        raise ValueError("the answer asks one question twice")
    return pairs


def _load(text: str) -> Any:
    text = text.rpartition("</think>")[2].strip()
    if fenced := re.fullmatch(r"```\w*\s*\n(.*)\n\s*```", text, re.DOTALL):
        text = fenced[1]
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"the answer is no JSON: {json_reason(error)} at character {error.pos}") from None
    except RecursionError:
        raise ValueError("the answer is no JSON: nested too deep") from None


def _pair(value: Any, number: int) -> Pair:
    texts = []
    for key in ("question", "answer"):
        text = value.get(key) if isinstance(value, dict) else None
        if not isinstance(text, str):
            raise ValueError(f"pair {number} has no text '{key}'")
        if not text.strip():
            raise ValueError(f"pair {number}: '{key}' is empty")
        if token := CONTROL_TOKEN.search(text):
            raise ValueError(f"pair {number}: '{key}' spells the control token {token[0]}")
        texts.append(text.strip())
    return Pair(*texts)
