"""Gives each process of the cluster a host name of its own, as if it ran on a machine of its own."""

import os


def name() -> str:
    """Return the host name that the process was given."""
    return os.environ["QUICKBI_TEST_HOST"]
