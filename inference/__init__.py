"""Inference: wire protocols, the engine singleton and the model workers."""
