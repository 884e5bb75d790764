"""How a track is named on the command line, for messages that give the next command."""

from __future__ import annotations

from harness.tracks.track import track_names


def argument_for(name: str) -> str:
    """What to give with ``--track`` for the track of this name.

    Args:
        name: the track's own name.

    Returns:
        The name of a track that ships; of any other one the name of its file, which is the track's with an ending.
    """
    return name if name in track_names() else f"{name}.toml"
