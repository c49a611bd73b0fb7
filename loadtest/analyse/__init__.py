"""What the samples mean: figures with their uncertainty, limits, verdicts."""
