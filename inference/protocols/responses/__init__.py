"""OpenAI's Responses: requests that may go on from a stored answer, answers as items, streams of numbered events."""

from __future__ import annotations
