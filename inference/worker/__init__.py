"""The worker program: one process that runs one model and knows nothing of HTTP, Django or databases."""
