"""Tasks whose answer is text, as data: a ``task.toml`` with a table ``[text]`` in place of classes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from harness.contract import TextMetric, TextTask
from harness.errors import TaskError

if TYPE_CHECKING:
    from collections.abc import Iterator

Positive = Annotated[int, msgspec.Meta(gt=0, le=4096)]


class TextWording(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One wording of a text task, used exactly as written."""

    template: str
    """With ``{a}``, and for pairs ``{b}``. The output follows right after its end."""
    before: str = " "
    """What stands between the template and an output."""
    stop: tuple[str, ...] = ("\n",)
    """Texts that end an output."""


class TextSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table ``[text]``."""

    most_tokens: Positive
    """Longest output in tokens of the model."""
    profiles: dict[str, TextWording]


class TextHub(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The public data set of a text task."""

    dataset: str
    columns: tuple[str, ...]
    """Names of the columns with the texts; one inside another is written with a dot, as ``translation.de``."""
    references: str
    """The column with the reference, named as `columns` are. Rows of the same texts are one example with several."""
    train: str
    """The split from which few-shot examples are drawn."""
    test: str
    config: str | None = None
    revision: str | None = None
    after: str = ""
    """A reference begins after the last place where this stands in the column; empty means that all of it is one."""
    test_texts: Annotated[int, msgspec.Meta(gt=0)] | msgspec.UnsetType = msgspec.UNSET
    """How many test examples there are; without it, all of the split. They are drawn by the SHA-256 of their texts."""


class TextTaskFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The ``task.toml`` of a text task, validated."""

    name: str
    title: str
    fields: Literal[1, 2]
    metric: TextMetric
    text: TextSpec
    hub: TextHub | None = None


def text_task(name: str, fields: int, metric: TextMetric, spec: TextSpec, profile: str, kind: str) -> TextTask:
    """A text task in the wording of `profile`.

    Raises:
        TaskError: the profile does not exist, or the model does not write.
    """
    if kind != "causal":
        raise TaskError(f"task {name} is answered by text, and a {kind} model does not write; take a causal one")
    found = spec.profiles.get(profile)
    if found is None:
        raise TaskError(f"task {name}: no profile {profile!r}; there are {', '.join(sorted(spec.profiles))}")
    return TextTask(name, metric, found.template, found.before, found.stop, spec.most_tokens, fields)


def text_problems(file: TextTaskFile) -> Iterator[tuple[list[str], str]]:
    """Each rule that the file breaks, as (keys, message)."""
    if not file.text.profiles:
        yield ["text", "profiles"], "no wording; add [text.profiles.harness-2026] with `template`"
    wanted = ["a", "b"][: file.fields]
    if file.hub is not None and len(file.hub.columns) != file.fields:
        message = f"hub.columns has {len(file.hub.columns)} columns for {file.fields} text fields"
        yield ["hub", "columns"], f"{message}; one for each is needed"
    for name, wording in file.text.profiles.items():
        keys = ["text", "profiles", name]
        found = re.findall(r"\{([^{}]*)\}", wording.template)
        if sorted(found) != wanted:
            needed = " and ".join(f"{{{each}}}" for each in wanted)
            yield keys, f"template {wording.template!r} has the fields {found}; {needed} exactly once is needed"
        if not all(wording.stop):
            yield keys, "an empty text in `stop` would end every output"
