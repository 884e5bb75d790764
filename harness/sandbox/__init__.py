"""Runs submissions in isolation: a new process with one inherited socket, an almost empty environment and limits."""
