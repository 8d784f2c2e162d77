"""Local tools that a model may call: which there are, and how one runs within limits. Nothing of models here."""
