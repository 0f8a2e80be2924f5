"""From messages to token ids and from token ids to the pieces of an answer. No module here imports MLX."""
