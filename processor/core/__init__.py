"""The pure ring: decides, never does. No I/O, no clock, no randomness, no logging."""
