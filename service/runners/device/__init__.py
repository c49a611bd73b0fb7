"""The device runner: rows that stay on a GPU, and what computes their steps there."""
