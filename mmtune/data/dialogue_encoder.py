"""The pieces of a template as ids, made once, and what joins them with the ids of texts. Used by `encode.py`."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from mmtune.conversation import IGNORE_INDEX, ROLES, Conversation, Document, ImageSlot, Message, Sample
from mmtune.data.call_pieces import NO_TOOLS, CallPieces
from mmtune.data.template import ChatTemplate
from mmtune.data.text_encoder import TextEncoder
from mmtune.data.tool_format import ToolFormat

Item = Conversation | Document


class Turn(NamedTuple):
    """What stands around the text of one kind of turn.

    Attributes:
        before: ids of the piece before the text, but for the spaces at its end.
        before_no_text: ids of the whole piece, for a turn that does not begin with a text.
        glue: those spaces: they are tokenized with the text, as in the words of a sentence.
        has_prefix: whether the tokenizer itself puts a space before the text.
        after: ids of the piece behind it; of an answer, those that are supervised.
    """

    before: list[int]
    before_no_text: list[int]
    glue: str
    has_prefix: bool
    after: list[int]


class DialogueEncoder:
    """Joins the ids of texts to samples.

    Args:
        template: the pieces around each turn; None for documents alone.
        tokenizer: has the ids of BOS and EOS.
        encoder: of that tokenizer.
    """

    def __init__(self, template: ChatTemplate | None, tokenizer: Any, encoder: TextEncoder):
        self.template = template
        self.encoder = encoder
        self.bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        self.eos = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        self.separator: list[int] = []
        self.turns: dict[tuple[str, str | None], Turn] = {}
        self.calls: CallPieces | None = None
        if template is not None:
            self.separator = self.encoder.piece(template.separator, behind_text=True)
            roles = [role for role in ROLES if template.has_place_for(role)]
            self.turns = {
                (role, previous): self._turn(template, role, previous) for role in roles for previous in (None, *roles)
            }
            if template.tools is not None:
                self.calls = CallPieces(template.tools, self.encoder)

    def _turn(self, template: ChatTemplate, role: str, previous: str | None) -> Turn:
        before, after = template.around(role, previous)
        glue = before if role == "assistant" else before[len(before.rstrip(" ")) :]
        head = before.removesuffix(glue) if glue else before
        has_prefix = self._has_prefix_behind(template, previous)
        head_ids = self.encoder.piece(head, behind_text=not has_prefix)
        if head_ids:
            has_prefix = self.encoder.prefix == "always" and head_ids[-1] in self.encoder.special_ids
        return Turn(
            before=head_ids,
            before_no_text=head_ids + self.encoder.piece(glue, behind_text=True),
            glue=glue,
            has_prefix=has_prefix,
            after=self.encoder.piece(template.answer_end if role == "assistant" else after, behind_text=True),
        )

    def _has_prefix_behind(self, template: ChatTemplate, previous: str | None) -> bool:
        """Whether the tokenizer puts a space before what follows a turn."""
        if previous is None and not (template.bos and self.bos):
            return self.encoder.prefix != "never"
        last = self.bos
        if previous is not None:
            last = self.encoder.piece(template.around(previous, None)[1], behind_text=True)
        return self.encoder.prefix == "always" and bool(last) and last[-1] in self.encoder.special_ids

    def wrong(self, item: Item, num_image_tokens: int) -> str:
        """Return why an item cannot be encoded, or an empty text."""
        if isinstance(item, Document):
            return ""
        assert self.template is not None, "a conversation needs a template"
        if not num_image_tokens and any(isinstance(part, ImageSlot) for turn in item.messages for part in turn.content):
            return "has an image, but this model has no vision encoder. Set model.vision, or drop the image."
        if self.template.system is None and item.messages[0].role == "system":
            reason = "has a system message, which this chat template has no place for."
            return f"{reason} Drop it, or take another model.llm.chat_template."
        if any(turn.role in ("tools", "result") or turn.calls for turn in item.messages):
            return NO_TOOLS if self.calls is None else self.calls.missing
        return ""

    def texts_of(self, item: Item) -> list[str]:
        """Return the texts of an item as they are tokenized, in order."""
        if isinstance(item, Document):
            prefix = self.encoder.prefix
            has_prefix = prefix == "always" or (prefix == "first" and not self.bos)
            return [self._with_prefix(item.text) if has_prefix else item.text]
        return self.texts_of_turns(item.messages)

    def texts_of_turns(self, messages: Sequence[Message], previous: str | None = None) -> list[str]:
        """Return the texts of turns as they are tokenized, in order.

        Args:
            messages: the turns.
            previous: the role of the turn before them; None where the dialogue begins.
        """
        texts = []
        for message in messages:
            turn = self.turns[message.role, previous]
            previous = message.role
            content = message.content
            if previous == "assistant" and len(content) != 1:
                content = (message.text,)
            first = content[0] if content else None
            if previous == "tools" and isinstance(first, str):
                first = self._tools.offer_text(first)
            if isinstance(first, str) and first:
                text = turn.glue + first
                texts.append(self._with_prefix(text) if turn.has_prefix else text)
            if len(content) > 1:
                texts += self._further_texts(content)
            for call in message.calls:
                text = self._tools.call_text(call)
                texts.append(self._with_prefix(text) if self.calls and self.calls.has_prefix else text)
        return texts

    @property
    def _tools(self) -> ToolFormat:
        assert self.template is not None
        assert self.template.tools is not None
        return self.template.tools

    def _further_texts(self, content: Sequence[str | ImageSlot]) -> list[str]:
        """Return the texts behind the first part of a turn. One behind an image stands as behind a control token."""
        texts = []
        for before, part in pairwise(content):
            if isinstance(part, str) and part:
                has_prefix = self.encoder.prefix == "always" and isinstance(before, ImageSlot)
                texts.append(self._with_prefix(part) if has_prefix else part)
        return texts

    def _with_prefix(self, text: str) -> str:
        return text if text.startswith(" ") and not self.encoder.doubles_prefix else f" {text}"

    def join(
        self,
        messages: Sequence[Message],
        texts: Sequence[list[int]],
        image_ids: list[int],
        previous: str | None = None,
    ) -> tuple[list[int], list[int], tuple[ImageSlot, ...]]:
        """Return the ids, labels and images of turns.

        Args:
            messages: the turns.
            texts: ids of what `texts_of_turns` gives.
            image_ids: the ids of one image.
            previous: the role of the turn before them; None where the dialogue begins.
        """
        assert self.template is not None
        ids = [*self.bos] if previous is None and self.template.bos else []
        spans, slots, waiting = [], [], iter(texts)
        for message in messages:
            turn = self.turns[message.role, previous]
            previous = message.role
            begin, content = len(ids), message.content
            if previous == "assistant":
                ids += next(waiting) if any(content) else turn.before_no_text
                for number in range(len(message.calls)):
                    assert self.calls is not None
                    ids += self.calls.around(next(waiting), is_first_said=not number and not any(content))
                ids += turn.after
                if message.supervised:
                    spans.append((begin, len(ids)))
                ids += self.separator
                continue
            ids += turn.before if content and content[0] and isinstance(content[0], str) else turn.before_no_text
            for part in content:
                if not isinstance(part, str):
                    ids += image_ids
                    slots.append(part)
                elif part:
                    ids += next(waiting)
            ids += turn.after
        labels = [IGNORE_INDEX] * len(ids)
        for begin, end in spans:
            labels[begin:end] = ids[begin:end]
        if labels:
            labels[0] = IGNORE_INDEX  # no position predicts the first one
        return ids, labels, tuple(slots)

    def document_samples(self, text: list[int], max_length: int | None, place: str) -> list[Sample]:
        """Return the samples of a document from the ids of its text; see `encode.encode_document`."""
        assert max_length is None or max_length >= 2, "a sample of one token predicts nothing"
        ids = [*self.bos, *text, *self.eos]
        step = (max_length or len(ids) + 1) - 1
        starts = range(0, max(len(ids) - 1, 1), max(step, 1))
        pieces = [ids[start : start + step + 1] for start in starts]
        return [Sample(piece, [IGNORE_INDEX, *piece[1:]] if piece else [], place=place) for piece in pieces]


class _Known(NamedTuple):
    """What was made for a tokenizer while it had that many tokens."""

    num_tokens: int
    texts: dict[frozenset[str], TextEncoder]
    dialogues: dict[ChatTemplate | None, DialogueEncoder]


_known: "WeakKeyDictionary[Any, _Known]" = WeakKeyDictionary()


def encoder_of(template: ChatTemplate | None, tokenizer: Any) -> DialogueEncoder:
    """Return the encoder of a template and a tokenizer, made once; anew where the tokenizer got more tokens."""
    known = _known.get(tokenizer)
    if known is None or known.num_tokens != len(tokenizer):
        known = _known[tokenizer] = _Known(len(tokenizer), {}, {})
    if template not in known.dialogues:
        protected = _protected(template, tokenizer)
        if protected not in known.texts:
            known.texts[protected] = TextEncoder(tokenizer, protected)
        known.dialogues[template] = DialogueEncoder(template, tokenizer, known.texts[protected])
    return known.dialogues[template]


def _protected(template: ChatTemplate | None, tokenizer: Any) -> frozenset[str]:
    """Return the control tokens of a template that a tokenizer does not call special."""
    if template is None:
        return frozenset()
    added = tokenizer.added_tokens_decoder.values()
    return frozenset(token.content for token in added if not token.special and token.content in template.literals)
