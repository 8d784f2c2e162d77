"""From other tools' configs to ours. Weights are read by `models/`."""
