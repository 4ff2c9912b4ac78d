"""Detectors by name: one file a detector, found by its place in this folder."""
