"""What every parameter of every endpoint does: cases that are tried and that make ``docs/conformance.md``."""
