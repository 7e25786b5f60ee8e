"""Noticing each finished run once."""
