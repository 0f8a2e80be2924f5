"""The stepping loop: batched decoding over mlx-lm models and caches with per-row sampling."""
