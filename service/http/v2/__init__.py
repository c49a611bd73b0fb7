"""The Open Inference Protocol V2 under /v2: encoded tensors in, logits, steps and states out."""
