"""What is fixed for everybody: tracks, tasks, the examples of each split, and the tiers of isolation."""
