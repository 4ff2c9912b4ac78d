"""Event-time windows and anomaly detection over Kinesis, in one container."""

__version__ = "0.1.0"
