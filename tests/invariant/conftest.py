from training_workspace import models, workspace

__all__ = ["models", "workspace"]
