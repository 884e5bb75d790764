"""The language model as a service: weights, forward passes, the wire, and both of its ends."""
