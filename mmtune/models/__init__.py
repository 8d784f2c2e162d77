"""The parts of the model: vision, projectors, language models, adapters, loss. Never imports data or config."""

import mmtune.torchvision_ops  # noqa: F401  (before anything imports transformers)
