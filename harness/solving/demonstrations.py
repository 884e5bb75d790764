"""Training texts as text: what stands before the input in in-context learning."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.contract import Examples, Task


def without_braces(text: str) -> str:
    """Remove the braces, which mean fields in a template.

    Args:
        text: any text.

    Returns:
        The text, to stand in a template as it is.

    Example:
        ``without_braces("{a} b")  # "a b"``
    """
    return text.replace("{", "").replace("}", "")


def demonstration(task: Task, examples: Examples, n: int) -> str:
    """Fill the template with a text and, at its mask, the text's label word.

    Args:
        task: gives the template and the label words.
        examples: where the text is from.
        n: its number among them.

    Returns:
        The filled template without braces, to stand before another one.

    Example:
        ``Member(f"{demonstration(task, train, 0)} {task.template}", task.words)``
    """
    before = task.template.partition("{mask}")[0]
    word = without_braces(task.words[examples.labels[n]])
    filled = task.template.replace("{mask}", word.strip() if not before or before[-1].isspace() else word)
    for name, text in zip("ab", examples.texts[n], strict=False):
        filled = filled.replace(f"{{{name}}}", without_braces(text).strip())  # what stands already has no braces
    return filled
