"""Example DAGs, and the programs that run them against a local Quick BI."""
