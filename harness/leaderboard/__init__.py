"""Ranks what the results database holds. Reads facts, computes scores, never runs a model."""
