"""Waiting for a run."""
