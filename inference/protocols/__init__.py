"""Wire protocols: one package for each, from its requests to ``GenerateRequest`` and from events to its answers."""
