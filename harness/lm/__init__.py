"""The language model: loaded once, frozen, and asked for label-word logits."""
