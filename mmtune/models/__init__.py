"""The parts of the model: vision, projectors, language models, adapters, loss. Never imports data or config."""
