"""From conversations to token ids and labels: the one way that training and chat share. Text to ids: `text_encoder.py`.

Ids and labels grow together, turn by turn, so the mask is right by construction and the prompt seen in training is
the prompt seen in chat. Text is tokenized once and never decoded to be tokenized again.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mmtune.conversation import IMAGE_TOKEN_ID, Conversation, Document, Message, Sample
from mmtune.data.dialogue import half_character
from mmtune.data.dialogue_encoder import Item, encoder_of
from mmtune.data.template import ChatTemplate
from mmtune.errors import DataError


def encode(
    conversation: Conversation,
    template: ChatTemplate,
    tokenizer: Any,
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
        tokenizer: a `PreTrainedTokenizerFast`, or what has its `backend_tokenizer`.
        num_image_tokens: how many ids one image takes; 576 for CLIP ViT-L/14-336.
        max_length: ids beyond it are cut, images included. An image is kept whole or dropped with all that follows.
        add_generation_prompt: the last message is a user turn, or a tool's result, to be answered.
        place: `file:line`, kept for messages.

    Returns:
        The sample. It may be without a supervised token where `max_length` cut off every answer.

    Raises:
        DataError: there is an image and `num_image_tokens` is 0, a system message that the template cannot hold, no
            turn, or a last turn that does not fit the purpose.
    """
    if not conversation.messages:
        raise DataError(place or "conversation", "it has no turn. Give it a question and an answer.")
    last = conversation.messages[-1].role
    if add_generation_prompt != (last in ("user", "result")):
        wanted = "a user's turn or a tool's result" if add_generation_prompt else "an answer"
        raise DataError(place or "conversation", f"its last turn is the {last}'s. It must be {wanted}.")
    return _one(conversation, template, tokenizer, num_image_tokens, max_length, place)[0]


def encode_document(document: Document, tokenizer: Any, *, max_length: int | None, place: str = "") -> list[Sample]:
    """Encode a text without turns: BOS, the text and EOS, where the tokenizer has them, all of them supervised.

    A long text becomes several samples. Each begins with the last token of the one before, which is not supervised
    there, so that every token but the very first is predicted exactly once.

    Args:
        document: the text.
        tokenizer: as for `encode`.
        max_length: ids of a sample, at least 2; None makes one sample.
        place: `file:line`, kept for messages.
    """
    return _one(document, None, tokenizer, 0, max_length, place)


def _one(
    item: Item, template: ChatTemplate | None, tokenizer: Any, num_image_tokens: int, max_length: int | None, place: str
) -> list[Sample]:
    (samples,) = encode_batch(
        [item], [place], template, tokenizer, num_image_tokens=num_image_tokens, max_length=max_length
    )
    if isinstance(samples, DataError):
        raise samples
    return samples


def encode_batch(
    items: Sequence[Item],
    places: Sequence[str],
    template: ChatTemplate | None,
    tokenizer: Any,
    *,
    num_image_tokens: int,
    max_length: int | None,
) -> list[list[Sample] | DataError]:
    """Encode many conversations and documents at once; see `encode` and `encode_document`.

    Args:
        items: in order.
        places: `file:line` of each.
        template: may be None where there are documents alone.
        tokenizer: as for `encode`.
        num_image_tokens: how many ids one image takes.
        max_length: ids of a sample.

    Returns:
        For each item its samples, one for a conversation, or what is wrong with it.
    """
    encoder = encoder_of(template, tokenizer)
    texts: list[list[str]] = []
    problems: list[str] = []
    for item in items:
        problem = encoder.wrong(item, num_image_tokens)
        own = [] if problem else encoder.texts_of(item)
        problem = problem or next(filter(None, map(half_character, own)), "")
        problems.append(problem)
        texts.append([] if problem else own)
    ids = iter(encoder.encoder.texts([text for own in texts for text in own]))
    image_ids = [IMAGE_TOKEN_ID] * num_image_tokens
    found: list[list[Sample] | DataError] = []
    for item, own, problem, place in zip(items, texts, problems, places, strict=True):
        own_ids = [next(ids) for _ in own]
        if problem:
            found.append(DataError(place, problem))
        elif isinstance(item, Document):
            found.append(encoder.document_samples(own_ids[0], max_length, place))
        else:
            sample = Sample(*encoder.join(item.messages, own_ids, image_ids), place)
            found.append([_cut(sample, num_image_tokens, max_length)])
    return found


def _cut(sample: Sample, num_image_tokens: int, max_length: int | None) -> Sample:
    """Cut at `max_length`, or before the image that it would cut through."""
    ids, labels = sample.input_ids, sample.labels
    if max_length is None or len(ids) <= max_length:
        return sample
    end = max_length
    if ids[end] == IMAGE_TOKEN_ID:
        end -= ids[:end].count(IMAGE_TOKEN_ID) % num_image_tokens
    num_images = ids[:end].count(IMAGE_TOKEN_ID) // num_image_tokens if num_image_tokens else 0
    slots = sample.image_slots[:num_images]
    return replace(sample, input_ids=ids[:end], labels=labels[:end], image_slots=slots, num_cut_tokens=len(ids) - end)


def prompt_ids(
    message: Message, template: ChatTemplate, tokenizer: Any, num_image_tokens: int, previous: str | None = None
) -> list[int]:
    """Return the ids of a turn that is not the assistant's, up to where the answer begins.

    Args:
        message: the turn.
        template: the pieces around each turn.
        tokenizer: as for `encode`.
        num_image_tokens: how many ids one image takes.
        previous: the role of the turn before it; None where the dialogue begins, with BOS where the template has it.

    Raises:
        DataError: it is a system message that the template cannot hold, or a text with half a character.
    """
    encoder = encoder_of(template, tokenizer)
    if reason := encoder.wrong(Conversation((message,)), num_image_tokens):
        raise DataError("dialogue", reason)
    texts = encoder.texts_of_turns((message,), previous)
    if reason := next(filter(None, map(half_character, texts)), ""):
        raise DataError("dialogue", f"the text {reason}")
    ids = encoder.encoder.texts(texts)
    return encoder.join((message,), ids, [IMAGE_TOKEN_ID] * num_image_tokens, previous)[0]


def answer_ids(message: Message, template: ChatTemplate, tokenizer: Any, previous: str) -> list[int]:
    """Return the ids of an answer as training has them, without what closes it.

    Args:
        message: the assistant's turn.
        template: the pieces around each turn.
        tokenizer: as for `encode`.
        previous: the role of the turn before it.
    """
    encoder = encoder_of(template, tokenizer)
    texts = encoder.encoder.texts(encoder.texts_of_turns((message,), previous))
    ids = encoder.join((message,), texts, [], previous)[0]
    return ids[: len(ids) - len(encoder.turns["assistant", previous].after) - len(encoder.separator)]


def closing_ids(answer: Sequence[int], template: ChatTemplate, tokenizer: Any) -> list[int]:
    """Return the ids that close an answer as training closes it: what is left of its end, and the separator.

    Args:
        answer: generated, without the stop token.
        template: the pieces around each turn.
        tokenizer: as for `encode`.
    """
    encoder = encoder_of(template, tokenizer)
    end = encoder.turns["assistant", "user"].after
    said = list(answer)
    num_said = next((number for number in range(len(end) - 1, 0, -1) if said[-number:] == end[:number]), 0)
    return end[num_said:] + encoder.separator


def text_ids(text: str, tokenizer: Any) -> list[int]:
    """Return the ids of what people say: special tokens that it spells are plain text."""
    return encoder_of(None, tokenizer).encoder.texts([text])[0]


def control_ids(piece: str, tokenizer: Any) -> list[int]:
    """Return the ids of a template's piece behind text: special tokens that it spells are themselves."""
    return encoder_of(None, tokenizer).encoder.piece(piece, behind_text=True)
