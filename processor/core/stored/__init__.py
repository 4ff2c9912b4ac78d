"""How a shard's state is stored: a chain of what changed since the last time (`chain`)."""
