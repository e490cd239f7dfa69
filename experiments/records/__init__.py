"""Results as one long table: what a score is, how runs and releases store it, and how tables show it."""
