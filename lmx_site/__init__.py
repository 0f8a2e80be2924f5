"""The site: settings, configuration, the edge, and the one place where the three apps meet."""

from __future__ import annotations

__version__ = "0.1.0"
