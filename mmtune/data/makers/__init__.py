"""Makers of data: the code behind `data_tools/` and the `make-*` steps of a recipe."""
