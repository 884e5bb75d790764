"""Files that desktops leave in every folder one opens: nobody put them there, so they belong to no upload."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import PurePath

_NAMES = frozenset({".ds_store", "thumbs.db", "desktop.ini"})


def is_litter(path: PurePath) -> bool:
    """Whether a file or folder was left by macOS or Windows, by its name.

    Args:
        path: the file, within the folder or archive that somebody hands in.

    Returns:
        True for ``.DS_Store``, ``Thumbs.db``, ``desktop.ini``, ``._*`` and all below ``__MACOSX``.
    """
    return path.name.lower() in _NAMES or path.name.startswith("._") or "__MACOSX" in path.parts
