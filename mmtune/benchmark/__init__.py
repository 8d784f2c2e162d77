"""How fast a config trains and what it takes, on synthetic data and, where weights are absent, on random ones."""
