"""Ranks the entries of the results database. It reads facts and computes scores, and never runs a model."""
