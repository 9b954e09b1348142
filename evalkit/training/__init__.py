"""Training recipes of the bundled checkpoints: resumable, deterministic on one machine and thread count."""
