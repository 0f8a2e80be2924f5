"""Tests of what surrounds the code: pins, environment, wheel, command line, documents and house rules."""
