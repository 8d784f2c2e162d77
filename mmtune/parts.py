"""A model and all that reads for it: what chat, training and evaluation need. From a config: `build.py`."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mmtune.conversation import Conversation, Sample
from mmtune.data.conversation_dataset import ConversationDataset
from mmtune.data.dialogue import check_conversation
from mmtune.data.encode import control_ids, encode
from mmtune.data.images import ImageTransform
from mmtune.data.template import ChatTemplate
from mmtune.errors import DataError
from mmtune.models.vlm import VisionLanguageModel
from mmtune.run_folder import PREPROCESSOR_FILE, TOKENIZER_FOLDER, write_json


@dataclass
class Parts:
    """All that chat, training and evaluation need of a model.

    Tokenizer and template stay as they are: the ids that end an answer are found once.

    Attributes:
        model: on its device.
        tokenizer: a fast tokenizer of transformers.
        template: the chat template it is trained with.
        transform: from image to pixels; None for text models.
    """

    model: VisionLanguageModel
    tokenizer: Any
    template: ChatTemplate
    transform: ImageTransform | None

    @property
    def num_image_tokens(self) -> int:
        """How many ids an image takes; 0 for text models."""
        return 0 if self.model.vision is None else self.model.vision.num_tokens

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """The ids that end an answer: the tokenizer's EOS and the template's stop tokens."""
        stops = [control_ids(text, self.tokenizer) for text in self.template.stop]
        assert all(len(ids) == 1 for ids in stops), "a stop text must be one token"
        return frozenset({self.tokenizer.eos_token_id, *(ids[0] for ids in stops)} - {None})

    @cached_property
    def mark_ids(self) -> frozenset[int]:
        """The ids of marks in the template that the tokenizer does not call special.

        A mark begins and ends with no letter, such as `<eoa>`: vocabularies have plain words among their added tokens.
        """
        marks, literals = set(), self.template.literals
        for number, token in self.tokenizer.added_tokens_decoder.items():
            text = token.content.strip()
            if not token.special and text and text in literals and not (text[0].isalnum() or text[-1].isalnum()):
                marks.add(number)
        return frozenset(marks)

    def save_readers(self, folder: Path) -> None:
        """Write what makes ids and pixels into a run folder: tokenizer, and image transform of a model that sees."""
        self.tokenizer.save_pretrained(folder / TOKENIZER_FOLDER)
        if self.transform is not None:
            write_json(folder / PREPROCESSOR_FILE, self.transform.to_dict())

    def dataset(
        self,
        conversations: Iterable[Conversation],
        *,
        max_length: int | None = None,
        image_folder: Path | str = ".",
    ) -> ConversationDataset:
        """Return conversations as a dataset to train this model on, checked as those of files are.

        Args:
            conversations: each ends with an answer.
            max_length: ids beyond it are cut.
            image_folder: what their image paths are relative to, and may not leave.

        Raises:
            DataError: a conversation breaks a rule; its place is its number, from 0.
        """
        samples = []
        for number, conversation in enumerate(conversations):
            place = f"conversations[{number}]"
            try:
                check_conversation(conversation)
            except ValueError as error:
                raise DataError(place, str(error)) from None
            samples.append(self.encode(conversation, place, max_length=max_length))
        return ConversationDataset(samples, self.transform, image_folder)

    def encode(self, conversation: Conversation, place: str = "", **options: Any) -> Sample:
        """Encode with this model's tokenizer, template and image tokens; see `mmtune.data.encode.encode`."""
        return encode(
            conversation,
            self.template,
            self.tokenizer,
            num_image_tokens=self.num_image_tokens,
            place=place,
            **options,
        )
