"""Where submissions run: a fresh process with one inherited socket, a scrubbed environment and limits."""
