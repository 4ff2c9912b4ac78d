"""Aggregators by name: one file a statistic, found by its place in this folder."""
