"""What an operator sees: metrics, logs, the HTTP endpoints."""
