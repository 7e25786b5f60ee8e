"""Starting a run at most once."""
