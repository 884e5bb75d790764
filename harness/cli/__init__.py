"""The command line: one file for each group of commands, and the only package that prints."""

from harness.cli.app import app, main

__all__ = ["app", "main"]
