"""Embedding models in a worker: the encoders, how vectors are made of their output, and whose turn it is."""
