"""What computes a step: one protocol, two backends, and the memory that slots live in."""
