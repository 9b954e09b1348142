"""Records to experiment trackers, after the local file; a tracker's failure warns and changes nothing. No torch."""
