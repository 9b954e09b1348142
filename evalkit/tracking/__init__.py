"""Records to experiment trackers, after the local file; a failing tracker warns, no more. No torch."""
