"""The notifier, and texts for other notifiers."""
