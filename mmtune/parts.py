"""A model and all that reads for it: what chat, training and evaluation need. From a config: `build.py`."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmtune.conversation import Conversation, Sample
from mmtune.data.conversation_dataset import ConversationDataset
from mmtune.data.dialogue import check_conversation
from mmtune.data.encode import encode
from mmtune.data.images import ImageTransform
from mmtune.data.template import ChatTemplate
from mmtune.errors import DataError
from mmtune.models.vlm import VisionLanguageModel
from mmtune.run_folder import PREPROCESSOR_FILE, TOKENIZER_FOLDER, write_json


@dataclass
class Parts:
    """All that chat, training and evaluation need of a model.

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
