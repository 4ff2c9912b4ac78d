"""From what detectors see to what people are told: when an alarm opens, escalates and resolves."""
