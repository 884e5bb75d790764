"""Training texts as text."""

from __future__ import annotations

import numpy as np
import pytest

from harness import Examples, Task
from harness.solving import demonstration, without_braces

EXAMPLES = Examples(((" left one ", "right one"), ("see {mask}", " x {b} ")), np.array([1, 0]))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{a} ? {mask} , {b}", "left one ? no , right one"),
        ("{a} {b} Same? Answer:{mask}", "left one right one Same? Answer: no"),
        ("{mask} : {b} , {a}", "no : right one , left one"),
    ],
)
def test_a_demonstration_is_the_template_with_text_and_label_word(template: str, expected: str) -> None:
    """A space stands before the word where the template has none."""
    task = Task("pairs", ("a", "b"), "accuracy", template, (" yes", " no"), 2)
    assert demonstration(task, EXAMPLES, 0) == expected


def test_braces_of_texts_are_no_fields() -> None:
    task = Task("pairs", ("a", "b"), "accuracy", "{a} ? {mask} , {b}", (" {yes}", " no"), 2)
    assert demonstration(task, EXAMPLES, 1) == "see mask ? yes , x b"
    assert without_braces("{a}b{{c") == "abc"
