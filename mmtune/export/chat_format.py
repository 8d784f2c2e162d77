"""A run's chat template, stop tokens and tokenizer in the forms that other libraries read."""

import json
import re
from typing import Any

from tokenizers import Tokenizer
from transformers import GenerationConfig, PreTrainedTokenizerFast

from mmtune.build import Parts
from mmtune.data.template import ChatTemplate

IMAGE_MARK = "<image>"
UNUSED_TOKEN = re.compile(r"[\[<]\|?(?:unused|reserved)[a-z_ ]*\d+\|?[\]>]", re.IGNORECASE)
"""What vocabularies call tokens that nothing was trained on, such as `[UNUSED_TOKEN_0]`."""


SAID_WITH_IMAGES = (
    "{%- macro said(content) -%}{%- if content is string -%}{{- content -}}{%- else -%}"
    "{%- for part in content if part.type == 'image' -%}{{- IMAGE_MARK -}}{%- endfor -%}"
    "{%- for part in content if part.type == 'text' -%}{{- part.text -}}{%- endfor -%}"
    "{%- endif -%}{%- endmacro -%}"
)
SAID_IN_TEXT = "{%- macro said(content) -%}{{- content -}}{%- endmacro -%}"
OPENING_WITHOUT_SYSTEM = "{{- BOS -}}{%- if messages[0].role != 'system' -%}{{- OPENING -}}{%- endif -%}"
SYSTEM = "{{- SYSTEM_BEFORE ~ said(message.content) ~ SYSTEM_AFTER -}}"
NO_SYSTEM = "{{- raise_exception('This model takes no system message.') -}}"
USER = "{{- USER_BEFORE ~ said(message.content) ~ USER_AFTER -}}"
USER_AFTER_SYSTEM = (
    "{%- if loop.index0 == 1 and messages[0].role == 'system' -%}"
    "{{- FIRST_BEFORE ~ said(message.content) ~ FIRST_AFTER -}}{%- else -%}" + USER + "{%- endif -%}"
)


def image_template(template: ChatTemplate, bos: str | None) -> str:
    """Return a chat template as a Jinja text that renders what `encode` encodes.

    The text around a user turn opens the assistant's turn, so a prompt is complete without `add_generation_prompt`.
    Images stand before the text of their turn, each on a line of its own, as in `chat.exchange.question_message`.

    Args:
        template: the run's.
        bos: the tokenizer's BOS token, or None.
    """
    return _with_literals(SAID_WITH_IMAGES + _dialogue(template), template, bos)


def text_template(template: ChatTemplate, bos: str | None) -> str:
    """Return the same for programs that put images into the text themselves, such as llama.cpp."""
    return _with_literals(SAID_IN_TEXT + _dialogue(template), template, bos)


def _dialogue(template: ChatTemplate) -> str:
    opening = OPENING_WITHOUT_SYSTEM if template.opening else "{{- BOS -}}"
    system = NO_SYSTEM if template.system is None else SYSTEM
    user = USER if template.user_after_system is None else USER_AFTER_SYSTEM
    return (
        f"{opening}{{%- for message in messages -%}}{{%- if message.role == 'system' -%}}{system}"
        f"{{%- elif message.role == 'user' -%}}{user}"
        "{%- else -%}{{- ANSWER_START ~ said(message.content) ~ ANSWER_END -}}{%- endif -%}{%- endfor -%}"
    )


def _with_literals(text: str, template: ChatTemplate, bos: str | None) -> str:
    literals = {
        "IMAGE_MARK": f"{IMAGE_MARK}\n",
        "BOS": bos if template.bos and bos else "",
        "OPENING": template.opening,
    }
    if template.system is not None:
        literals["SYSTEM_BEFORE"], literals["SYSTEM_AFTER"] = template.around("system", None)
    literals["USER_BEFORE"], literals["USER_AFTER"] = template.around("user", "assistant")
    literals["FIRST_BEFORE"], literals["FIRST_AFTER"] = template.around("user", "system")
    literals["ANSWER_START"], literals["ANSWER_END"] = template.around("assistant", "user")
    names = re.compile(rf"\b(?:{'|'.join(literals)})\b")
    return names.sub(lambda found: json.dumps(literals[found[0]], ensure_ascii=False), text)


def generation_config(parts: Parts) -> GenerationConfig:
    """Return greedy decoding that stops where the run stops: at EOS and at the template's stop tokens."""
    return GenerationConfig(
        bos_token_id=parts.tokenizer.bos_token_id,
        eos_token_id=sorted(parts.stop_ids),
        pad_token_id=parts.tokenizer.pad_token_id,
        do_sample=False,
    )


def choose_image_id(tokenizer: Any) -> int:
    """Return the id for `<image>`: its own, that of the first token that nothing was trained on, or a new one."""
    vocabulary = tokenizer.get_vocab()
    unused = [number for token, number in vocabulary.items() if UNUSED_TOKEN.fullmatch(token)]
    return vocabulary.get(IMAGE_MARK, min(unused, default=len(tokenizer)))


def plain_tokenizer(parts: Parts, image_id: int | None = None) -> PreTrainedTokenizerFast:
    """Return the run's tokenizer with its chat template, of the generic class.

    It adds no BOS of its own: the chat template has it where the run has it.

    Args:
        parts: of the run.
        image_id: from `choose_image_id`, or None for a tokenizer of text.
    """
    tokenizer = parts.tokenizer
    values = json.loads(tokenizer.backend_tokenizer.to_str())
    values["post_processor"] = None
    if image_id is not None:
        _name_image_token(values, image_id)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(values)),
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        unk_token=tokenizer.unk_token,
        pad_token=tokenizer.pad_token,
        padding_side="left",
        model_max_length=tokenizer.model_max_length,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = image_template(parts.template, tokenizer.bos_token)
    return fast


def _name_image_token(values: dict[str, Any], image_id: int) -> None:
    """Call a token `<image>` in the values of a tokenizer.json."""
    vocabulary = values["model"]["vocab"]
    if isinstance(vocabulary, dict):
        old = [token for token, number in vocabulary.items() if number == image_id]
        for token in old:
            del vocabulary[token]
        vocabulary[IMAGE_MARK] = image_id
    elif image_id < len(vocabulary):  # Unigram: pairs of token and score
        vocabulary[image_id][0] = IMAGE_MARK
    values["added_tokens"] = [token for token in values["added_tokens"] if token["id"] != image_id]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    values["added_tokens"].append({"id": image_id, "content": IMAGE_MARK} | flags)
    values["added_tokens"].sort(key=lambda token: token["id"])
