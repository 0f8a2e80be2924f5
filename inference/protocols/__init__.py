"""Wire protocols: one package per protocol, turning its requests into ``GenerateRequest`` and events into its answers."""
