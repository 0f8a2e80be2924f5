"""One module per engine, each behind ``base.Backend``."""
