"""The tests of Opta-LMX."""
