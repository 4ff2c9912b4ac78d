"""Where derived events and dead letters go: adapters of `ports.Sink` and `ports.DeadLetters`."""
