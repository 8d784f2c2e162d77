"""Published benchmarks: readers of their layouts, prompts, scorers; and how a run answers them."""
