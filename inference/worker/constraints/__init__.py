"""Token masks that hold an answer to a JSON schema, regular expression, grammar or list of choices."""
