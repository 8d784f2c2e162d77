"""Code that goes into exports, for libraries that load a model with the code beside it. mmtune runs none of it."""
