"""Training: the main path, the Trainer subclass, arguments, callbacks."""

import mmtune.torchvision_ops  # noqa: F401  (before anything imports transformers)
