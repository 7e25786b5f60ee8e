"""What the provider costs and how it fares beside its peers: ``python -m benchmarks``, see ``docs/benchmarks.md``."""
