"""What lets the processor run without a cloud: a Kinesis of our own, and what feeds it."""
