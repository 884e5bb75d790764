"""Labelled examples as text, to stand before the input in in-context learning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.contract import TextTask

if TYPE_CHECKING:
    from harness.contract import Examples, Task


def without_braces(text: str) -> str:
    """Remove braces, which mark fields in a template.

    Args:
        text: any text.

    Returns:
        The text, which can stand in a template as it is.

    Example:
        ``without_braces("{a} b")  # "a b"``
    """
    return text.replace("{", "").replace("}", "")


def demonstration(task: Task | TextTask, examples: Examples, n: int) -> str:
    """Fill the template with an example and, at its mask, the example's label word; on a text task, its reference.

    Args:
        task: gives the template and the label words.
        examples: the examples.
        n: the number of the example to use.

    Returns:
        The filled template without braces, which can stand before another one.

    Example:
        ``Member(f"{demonstration(task, train, 0)} {task.template}", task.words)``
    """
    if isinstance(task, TextTask):
        filled = task.template + without_braces(task.target(examples.references[n][0]))
    else:
        before = task.template.partition("{mask}")[0]
        word = without_braces(task.words[examples.labels[n]])
        filled = task.template.replace("{mask}", word.strip() if not before or before[-1].isspace() else word)
    for name, text in zip("ab", examples.texts[n], strict=False):
        filled = filled.replace(f"{{{name}}}", without_braces(text).strip())  # earlier texts have no braces left
    return filled
