"""The whole model: vision encoder, projector, language model. The data already holds N slots for every image."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from mmtune.conversation import IGNORE_INDEX, IMAGE_TOKEN_ID
from mmtune.models.adalora import penalty
from mmtune.models.attention import row_options
from mmtune.models.loss import agreed_chunks, answer_loss
from mmtune.models.neftune import add_noise
from mmtune.models.precision import to_autocast
from mmtune.models.projector import Projector
from mmtune.models.prompts import (
    has_prefix,
    has_prompts,
    num_virtual_tokens,
    prefix_cache,
    put_before_samples,
    virtual_embeds,
)
from mmtune.models.vision_encoder import VisionEncoder


class VisionLanguageModel(nn.Module):
    """A language model that reads projected image features at the slots of its input.

    Without `vision` and `projector` it is a plain language model: text runs use the same class.

    Args:
        llm: a causal language model of transformers, with its adapter already attached.
        vision: gives float[N, tokens, D] for N images.
        projector: from D to the language model's width.

    Attributes:
        checkpointed_share: of the language model's blocks, where gradient checkpointing is on.
        neftune_noise_alpha: of the noise on text embeddings while training; 0: none. See `mmtune.models.neftune`.
        label_smoothing_factor: of the loss while training; see `answer_loss`.
        runs_alike: an engine counts on it that all processes run the same modules in the same order: it adds up
            gradients as they come, or fetches weights as modules run.
        is_split: the latter, as parts of the weights lie on several devices.
        reads_features: images come as features, not as pixels.
        adapter_start: first factors of an adapter that was taken out of the weights; see `adapter_start.py`.
    """

    accepts_loss_kwargs = True  # the Trainer passes the supervised tokens of the whole step

    def __init__(self, llm: nn.Module, vision: VisionEncoder | None = None, projector: Projector | None = None):
        super().__init__()
        assert (vision is None) == (projector is None)
        self.llm, self.vision, self.projector = llm, vision, projector
        self.checkpointed_share = 1.0
        self.neftune_noise_alpha = self.label_smoothing_factor = 0.0
        self.runs_alike = self.is_split = self.reads_features = False
        self.adapter_start: dict[str, torch.Tensor] | None = None

    @property
    def base_llm(self) -> PreTrainedModel:
        """The causal language model inside a PEFT wrapper, or itself."""
        llm: Any = self.llm
        return llm if isinstance(llm, PreTrainedModel) else llm.get_base_model()

    @property
    def config(self) -> Any:
        """The language model's config, where the Trainer and DeepSpeed look for `hidden_size`."""
        return self.base_llm.config

    @property
    def blocks(self) -> list[GradientCheckpointingLayer]:
        """The blocks of the language model that can be computed again, from the first to the last."""
        return [module for module in self.base_llm.modules() if isinstance(module, GradientCheckpointingLayer)]

    @property
    def device(self) -> torch.device:
        """Where the language model's embeddings are."""
        embeddings: Any = self.base_llm.get_input_embeddings()
        return embeddings.weight.device

    def encode_images(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Map images float[N, 3, H, W] to embeddings float[N, tokens, hidden_size]."""
        assert self.vision is not None, "this model has no vision encoder"
        return self.project(self.vision(pixel_values.to(self.device)))

    def project(self, image_features: torch.Tensor) -> torch.Tensor:
        """Map features float[N, tokens, D] of the vision encoder to embeddings float[N, tokens, hidden_size]."""
        assert self.projector is not None
        return self.projector(image_features.to(self.device))

    def embed(self, input_ids: torch.Tensor, image_embeds: torch.Tensor | None = None) -> torch.Tensor:
        """Return input embeddings float[B, T, hidden_size] with the images in their slots.

        Args:
            input_ids: int64[B, T], `IMAGE_TOKEN_ID` at the slots.
            image_embeds: float[N, tokens, hidden_size], in the order of the slots.

        Raises:
            ValueError: slots and image tokens differ in number.
        """
        slots = input_ids == IMAGE_TOKEN_ID
        embeds = self.base_llm.get_input_embeddings()(input_ids.masked_fill(slots, 0))
        num_image_tokens = 0 if image_embeds is None else image_embeds.shape[0] * image_embeds.shape[1]
        if int(slots.sum()) != num_image_tokens:
            raise ValueError(f"{int(slots.sum())} image slots in the ids but {num_image_tokens} image tokens given")
        if image_embeds is None:
            return embeds
        return embeds.masked_scatter(slots.unsqueeze(-1), image_embeds.to(embeds.dtype))

    def forward(
        self,
        input_ids: torch.Tensor,
        labels: torch.Tensor,
        pixel_values: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
        sample_lengths: Sequence[int] | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> dict[str, torch.Tensor]:
        """Return `{"loss"}` of one batch.

        Args:
            input_ids: int64[B, T], padded on the right.
            labels: int64[B, T], `IGNORE_INDEX` where not supervised.
            pixel_values: float[N, 3, H, W] of all images of the batch, or None for text.
            position_ids: int64[B, T] where rows hold several samples, from 0 in each, else None.
            image_features: float[N, tokens, D] of the vision encoder, instead of `pixel_values`.
            sample_lengths: tokens of each sample without padding, row after row; see `hidden_states`.
            num_items_in_batch: supervised tokens of the whole optimizer step; see `answer_loss`.
        """
        sample_lengths = sample_lengths or None  # a batch of no samples: see `mmtune.data.collate.empty_batch`
        image_embeds = None if pixel_values is None else self.encode_images(pixel_values)
        if image_features is not None:
            image_embeds = self.project(image_features)
        zero = None
        if image_embeds is None and self.projector is not None and self.training:
            zero = self._image_gradients()
        embeds = self.embed(input_ids, image_embeds)
        if self.training and self.neftune_noise_alpha:
            is_text = input_ids != IMAGE_TOKEN_ID
            embeds = add_noise(embeds, is_text, self.neftune_noise_alpha, position_ids, sample_lengths)
        if zero is not None:
            embeds = embeds + zero.to(embeds.dtype)
        hidden = self.hidden_states(embeds, position_ids, sample_lengths)
        head = self.base_llm.get_output_embeddings()
        smoothing = self.label_smoothing_factor if self.training else 0.0
        num_chunks = agreed_chunks(labels, head) if self.is_split else None
        loss = answer_loss(hidden, labels, head, num_items_in_batch, num_chunks, smoothing)
        orthogonality = penalty(self.llm)
        if orthogonality is not None:
            loss = loss + orthogonality * _share(labels, num_items_in_batch)
        return {"loss": loss}

    def hidden_states(
        self,
        embeds: torch.Tensor,
        position_ids: torch.Tensor | None = None,
        sample_lengths: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """Return the last hidden states float[B, T, hidden_size] of embeddings float[B, T, hidden_size].

        Args:
            embeds: of the input.
            position_ids: int64[B, T], from 0 in each sample; None where a row is a sample.
            sample_lengths: tokens of each sample. Where these fill a single row, attention runs sample by sample if
                the model can, instead of over the whole row behind a mask.
        """
        if has_prefix(self.llm):
            return self._behind_prefix(embeds)
        is_own = None
        if has_prompts(self.llm):
            lengths = sample_lengths or (embeds.shape[1],) * len(embeds)
            virtual = virtual_embeds(self.llm, embeds.dtype)
            embeds, position_ids, sample_lengths, is_own = put_before_samples(embeds, virtual, lengths)
        options: dict[str, Any] = {}
        if sample_lengths is not None and embeds.shape[:2] == (1, sum(sample_lengths)):
            options = row_options(self.base_llm, sample_lengths, embeds.device)
        body = self.base_llm.get_decoder()
        embeds = to_autocast(embeds)
        states = body(inputs_embeds=embeds, position_ids=position_ids, use_cache=False, **options).last_hidden_state
        return states if is_own is None else states[:, is_own]

    def _behind_prefix(self, embeds: torch.Tensor) -> torch.Tensor:
        """Last hidden states of rows of one sample each, behind the keys and values of prefix tuning."""
        cache, first = prefix_cache(self.llm, len(embeds)), num_virtual_tokens(self.llm)
        positions = torch.arange(first, first + embeds.shape[1], device=embeds.device)[None]
        body = self.base_llm.get_decoder()
        return body(
            inputs_embeds=embeds, position_ids=positions, past_key_values=cache, use_cache=True
        ).last_hidden_state

    def _image_gradients(self) -> torch.Tensor:
        """A zero that gives vision and projector gradients of zero, so that ranks with and without images agree."""
        assert self.projector is not None
        assert self.vision is not None
        if self.runs_alike:
            return 0.0 * self._blank_embeds().sum()
        parameters = [*self.vision.parameters(), *self.projector.parameters()]
        trained = [parameter.sum() for parameter in parameters if parameter.requires_grad]
        return 0.0 * torch.stack(trained).sum() if trained else torch.zeros((), device=self.device)

    def _blank_embeds(self) -> torch.Tensor:
        """The embeddings of an empty image, for which vision and projector run as they do for any other."""
        assert self.vision is not None
        dtype = next(self.vision.parameters()).dtype
        if self.reads_features:
            return self.project(torch.zeros(1, self.vision.num_tokens, self.vision.hidden_size, dtype=dtype))
        size = self.vision.preprocessing["image_size"]
        return self.encode_images(torch.zeros(1, 3, size, size, dtype=dtype))

    def gradient_checkpointing_enable(self, **kwargs: Any) -> None:
        """Recompute blocks of the language model in the backward pass; called by the Trainer.

        A share of `checkpointed_share` of them, from the first one on; the others keep what they computed.
        """
        self.base_llm.activation_checkpointing_enable({"use_reentrant": False})
        number = math.ceil(self.checkpointed_share * len(self.blocks) - 1e-9)
        for block in self.blocks[number:]:
            block.gradient_checkpointing = False

    activation_checkpointing_enable = gradient_checkpointing_enable


def _share(labels: torch.Tensor, num_supervised_tokens: torch.Tensor | int | None) -> torch.Tensor | float:
    """The share of a batch in the supervised tokens of its optimizer step."""
    if num_supervised_tokens is None:
        return 1.0
    return (labels[:, 1:] != IGNORE_INDEX).sum() / num_supervised_tokens
