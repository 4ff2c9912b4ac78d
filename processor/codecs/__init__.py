"""Codecs by name: one file a format, found by its place in this folder."""
