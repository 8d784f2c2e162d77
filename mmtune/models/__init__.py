"""The parts of the model: vision, projectors, language models, adapters, loss. Never imports data or config."""

import mmtune.torchvision_ops  # noqa: F401  (before anything imports transformers)

# isort: split
from mmtune.models.quantized import quiet_bitsandbytes

quiet_bitsandbytes()  # before PEFT imports it
