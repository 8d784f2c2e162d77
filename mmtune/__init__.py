"""mmtune: teach a language model to see, and train it on text with the same code."""

__version__ = "0.1.0"
