"""The fused kernel: rows that think on chip, in one program each, until they halt."""
