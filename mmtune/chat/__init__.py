"""Ask a model: batched generation, chat sessions, the terminal loop."""

import mmtune.torchvision_ops  # noqa: F401  (before anything imports transformers)
