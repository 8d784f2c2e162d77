"""The parts of the model: vision encoders, projectors, language models, adapters, the loss. Never imports data or config."""
