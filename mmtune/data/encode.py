"""From a conversation to token ids and labels: the one function that training and chat share.

Ids and labels grow together, piece by piece, so the mask is right by construction and the prompt seen in training is
the prompt seen in chat. Text is tokenized once and never decoded to be tokenized again.
"""

from typing import Protocol

from mmtune.conversation import IGNORE_INDEX, IMAGE_TOKEN_ID, Conversation, Message, Sample
from mmtune.data.template import ChatTemplate
from mmtune.errors import DataError


class Tokenizer(Protocol):
    """What `encode` needs of a tokenizer; any `PreTrainedTokenizerFast` has it."""

    bos_token_id: int | None

    def __call__(self, text: str, *, add_special_tokens: bool, split_special_tokens: bool) -> dict[str, list[int]]:
        """Return `{"input_ids": [...]}`."""


def encode(
    conversation: Conversation,
    template: ChatTemplate,
    tokenizer: Tokenizer,
    *,
    num_image_tokens: int,
    max_length: int | None = None,
    add_generation_prompt: bool = False,
    place: str = "",
) -> Sample:
    """Encode a conversation into ids and labels of equal length.

    Every answer is supervised with the token that closes it; prompts, images and separators never are. Special
    tokens spelled out in a text become the pieces of plain text that they look like.

    Args:
        conversation: the dialogue. For training it ends with an answer; for a prompt it ends with a user turn.
        template: the pieces around each turn.
        tokenizer: turns text into ids.
        num_image_tokens: how many ids one image takes; 576 for CLIP ViT-L/14-336.
        max_length: ids beyond it are cut, images included. An image is kept whole or dropped with all that follows.
        add_generation_prompt: the last message is a user turn to be answered.
        place: `file:line`, kept for messages.

    Returns:
        The sample. It may be without a supervised token where `max_length` cut off every answer.

    Raises:
        DataError: there is an image and `num_image_tokens` is 0.
    """
    assert add_generation_prompt == (conversation.messages[-1].role == "user"), "the last turn must fit the purpose"
    if conversation.images and not num_image_tokens:
        reason = "has an image, but this model has no vision encoder. Set model.vision, or drop the image."
        raise DataError(place, reason)
    ids: list[int] = []
    labels: list[int] = []

    def add(new_ids: list[int], supervised: bool = False) -> None:
        ids.extend(new_ids)
        labels.extend(new_ids if supervised else [IGNORE_INDEX] * len(new_ids))

    add(opening_ids(template, tokenizer))
    for message in conversation.messages:
        if message.role == "assistant":
            add(answer_ids(message.text, template, tokenizer), message.supervised)
            add(control_ids(template.separator, tokenizer))
        else:
            add(prompt_ids(message, template, tokenizer, num_image_tokens))
    labels[0] = IGNORE_INDEX  # no position predicts the first one
    end = _end(ids, num_image_tokens, max_length)
    num_images = ids[:end].count(IMAGE_TOKEN_ID) // num_image_tokens if num_image_tokens else 0
    return Sample(ids[:end], labels[:end], conversation.image_slots[:num_images], place, num_cut_tokens=len(ids) - end)


def opening_ids(template: ChatTemplate, tokenizer: Tokenizer) -> list[int]:
    """Ids before the first turn: the BOS token, where the template has one."""
    return [tokenizer.bos_token_id] if template.bos and tokenizer.bos_token_id is not None else []


def prompt_ids(message: Message, template: ChatTemplate, tokenizer: Tokenizer, num_image_tokens: int) -> list[int]:
    """Ids of a system or user turn, up to where the answer begins."""
    before, after = (template.system if message.role == "system" else template.user).split("{text}")
    ids = control_ids(before, tokenizer)
    for part in message.content:
        ids += text_ids(part, tokenizer) if isinstance(part, str) else [IMAGE_TOKEN_ID] * num_image_tokens
    return ids + control_ids(after, tokenizer)


def answer_ids(text: str, template: ChatTemplate, tokenizer: Tokenizer) -> list[int]:
    """Ids of an answer and of what closes it: the supervised ones."""
    return text_ids(text, tokenizer) + control_ids(template.answer_end, tokenizer)


def text_ids(text: str, tokenizer: Tokenizer) -> list[int]:
    """Ids of what people say: special tokens that it spells are plain text."""
    return list(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]) if text else []


def control_ids(piece: str, tokenizer: Tokenizer) -> list[int]:
    """Ids of a template's piece: special tokens that it spells are themselves."""
    return list(tokenizer(piece, add_special_tokens=False, split_special_tokens=False)["input_ids"]) if piece else []


def _end(ids: list[int], num_image_tokens: int, max_length: int | None) -> int:
    """Where to cut: at `max_length`, or before the image that it would cut through."""
    if max_length is None or len(ids) <= max_length:
        return len(ids)
    end = max_length
    if ids[end] == IMAGE_TOKEN_ID:
        end -= ids[:end].count(IMAGE_TOKEN_ID) % num_image_tokens
    return end
