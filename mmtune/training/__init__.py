"""Training: the main path, the Trainer subclass, arguments, callbacks."""
