"""The core: who takes a step now, who has halted, who comes next. NumPy only, one thread per model."""
