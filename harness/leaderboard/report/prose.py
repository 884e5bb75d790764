"""Markdown that others wrote, as HTML that is harmless.

Raw HTML is shown as text, and a comment on a line of its own is left out. Links become text with their address, and
pictures become their description. So a README cannot send its reader, or a request, anywhere.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any

from markdown_it import MarkdownIt
from markupsafe import Markup, escape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markdown_it.token import Token

LONGEST = 200_000
"""Largest number of characters of a text that are shown."""
_COMMENT = re.compile(r"^<!--.*?-->[ \t]*$", re.MULTILINE)
"""A marker for tools, such as those around a README's scores: an empty line in its place, which ends a table."""


def rendered(text: str, under: int = 2) -> Markup:
    """HTML of a Markdown text. Its headings are moved down by `under` levels.

    A link within the project would lead nowhere in the report, so only its text is kept. Addresses outside are shown.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(_COMMENT.sub("", text[:LONGEST]))
    for token in tokens:
        if token.type in {"heading_open", "heading_close"}:
            token.tag = f"h{min(6, int(token.tag[1]) + under)}"
    n = itertools.count(1)
    rules: dict[str, Any] = {
        "link_open": lambda *_: "",
        "link_close": _address,
        "image": lambda tokens, at, *_: str(escape(tokens[at].content)),
        "table_open": lambda *_: f'<div class="scroll" tabindex="0" role="region" aria-label="table {next(n)}"><table>',
        "table_close": lambda *_: "</table></div>",
    }
    parser.renderer.rules.update(rules)  # type: ignore[attr-defined]  # its protocol hides the dictionary
    return Markup(parser.renderer.render(tokens, parser.options, {}))  # noqa: S704 - raw HTML is off


def _address(tokens: Sequence[Token], n: int, *_: object) -> str:
    """The address of the link that ends here, if it leads out of the project."""
    opened = next(token for token in reversed(tokens[:n]) if token.type == "link_open")
    href = str(opened.attrs.get("href", ""))
    shown = "".join(token.content for token in tokens[tokens.index(opened) + 1 : n])
    return f" <small>({escape(href)})</small>" if "://" in href and href != shown else ""
