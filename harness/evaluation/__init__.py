"""What happens to a submission: its cells are planned, run, scored, repeated."""
