"""Live data and history: memory readings, hub, telemetry, websocket and the pages that show them."""
