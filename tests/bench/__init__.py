"""``make bench``: figures, not assertions. It starts a stack of its own with eight accounts."""
