"""Tests of the inventory: real directories, a real database, real child processes."""

from __future__ import annotations
