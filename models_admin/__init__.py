"""The inventory: which models are on disk, what their files say, and the jobs that change that."""

from __future__ import annotations
