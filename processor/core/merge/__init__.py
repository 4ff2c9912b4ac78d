"""Global rules: what shards tell of their part of a rule, and how the parts become its results."""
