"""From words and filled templates to token ids. A long text is cut; the template is never cut."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.blackbox.checkpoints import checkpoint
from harness.blackbox.limits import as_read
from harness.blackbox.query import words_of
from harness.errors import QueryError
from harness.tracks.tasks import template_problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.contract import Text
    from harness.lm.backbones.base import Kind

VERBATIM = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
"""How tokens become text that is nothing but theirs."""
SENTINEL = "<extra_id_0>"
"""T5's token for the first gap in a text. It takes the place of a mask token."""


@dataclass(frozen=True)
class Encoded:
    """One filled template, without prompt tokens."""

    ids: tuple[int, ...]
    read: int
    """Position of the mask token, or of the last token for a causal model."""
    text: int = 0
    """How many of `ids` are the text's; the others are the template's, or were added."""


@dataclass(frozen=True)
class TextSet:
    """Texts under one template, tokenised once."""

    encoded: tuple[Encoded, ...]

    def __len__(self) -> int:
        """Count the texts."""
        return len(self.encoded)

    @property
    def tokens(self) -> int:
        """Tokens of all texts, prompt tokens not counted."""
        return sum(len(e.ids) for e in self.encoded)

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Of each text, its own tokens and those of the template."""
        return tuple((e.text, len(e.ids) - e.text) for e in self.encoded)


class Vocabulary:
    """What a tokenizer tells about words, with or without its model. Implements `harness.tracks.tasks.Tokens`."""

    def __init__(self, name: str, tokenizer: Any, size: int) -> None:
        """Wrap the tokenizer of the model `name`, which has `size` token ids."""
        self.name, self._tokenizer, self._size = name, tokenizer, size

    def word_ids(self, words: Sequence[str]) -> list[list[int]]:
        """Token ids of each word, verbatim."""
        return [list(self._tokenizer(word, add_special_tokens=False)["input_ids"]) for word in words_of(words)]

    def text(self, token: int) -> str:
        """The text of one token id."""
        return str(self._tokenizer.decode([token], clean_up_tokenization_spaces=False))

    def single_ids(self, words: Sequence[str]) -> tuple[int, ...]:
        """One id for each label word.

        Raises:
            QueryError: there are no words, or one is not a single token. The message names its tokens.
        """
        if not words:
            raise QueryError("the query has no label words; give at least one")
        ids, tokenizer = self.word_ids(words), self._tokenizer
        for word, pieces in zip(words, ids, strict=True):
            if len(pieces) != 1:
                shown = ", ".join(tokenizer.convert_ids_to_tokens(pieces)) or "nothing"
                raise QueryError(
                    f"label word {word!r} is {len(pieces)} tokens of {self.name} ({shown}); choose a single-token word"
                )
            if pieces[0] == tokenizer.unk_token_id and tokenizer.unk_token_id != tokenizer.eos_token_id:
                raise QueryError(f"label word {word!r} is unknown to {self.name}; choose a word of its vocabulary")
        return tuple(pieces[0] for pieces in ids)

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The word of each token id.

        It is "" for a special token, and for a word that is not read back as that one token.
        """
        tokenizer, special = self._tokenizer, set(self._tokenizer.all_special_ids)
        known = min(len(tokenizer), self._size)
        words = tokenizer.batch_decode([[i] for i in range(known)], clean_up_tokenization_spaces=False)
        ids = tokenizer(words, add_special_tokens=False)["input_ids"]
        good = [back == [i] and i not in special for i, back in enumerate(ids)]
        return tuple(word if fine else "" for word, fine in zip(words, good, strict=True)) + ("",) * (
            self._size - known
        )


def mask_token(tokenizer: Any) -> str | None:
    """The token that stands for {mask}: the mask token, or T5's first sentinel; None if there is neither."""
    if tokenizer.mask_token_id is not None:
        return str(tokenizer.mask_token)
    known = tokenizer.convert_tokens_to_ids(SENTINEL) not in {None, tokenizer.unk_token_id}
    return SENTINEL if known else None


def encode(
    tokenizer: Any, kind: Kind, template: str, text: Text, longest: int, *, to_continue: bool = False
) -> Encoded:
    """Fill `template` with `text` and tokenise it to at most `longest` tokens.

    With `to_continue`, a causal model's text is read as it stands, with the spaces at its end. Of a field of more than
    `harness.blackbox.limits.LONGEST_TEXT` characters the rest is never tokenised. Text fields lose tokens from their
    end, the longer field first. A mask token that stands in the text itself is text: the read position is the
    template's.

    Raises:
        QueryError: the template is malformed for this number of fields, or is too long even without a text.
    """
    problem = template_problem(template, len(text), kind == "causal")
    if problem:
        raise QueryError(problem)
    mask = "" if kind == "causal" else mask_token(tokenizer) or ""
    filled, spans, mask_at = _fill(template, as_read(text), mask, to_continue)
    coded = tokenizer(filled, return_offsets_mapping=True, add_special_tokens=True, verbose=False)
    ids, offsets = list(coded["input_ids"]), list(coded["offset_mapping"])
    if kind == "causal" and ids and ids[-1] == tokenizer.eos_token_id and offsets[-1][0] == offsets[-1][1]:
        ids, offsets = ids[:-1], offsets[:-1]
    owner = [_field(filled, span, spans) for span in offsets]
    keep = _kept(owner, len(ids) - longest)
    if keep is None:
        fixed = owner.count(None)
        raise QueryError(f"template {template!r} needs {fixed} tokens without any text, {longest} are allowed")
    if kind == "causal":
        kept = tuple(ids[i] for i in keep) or (tokenizer.bos_token_id,)
        if kept[0] is None:
            raise QueryError(f"template {template!r} without a text is nothing to read; put a word into it")
        return Encoded(kept, len(kept) - 1, sum(owner[i] is not None for i in keep))
    mask_id = tokenizer.convert_tokens_to_ids(mask)
    at = next((i for i in keep if ids[i] == mask_id and offsets[i][0] <= mask_at < offsets[i][1]), None)
    if at is None:
        raise QueryError(f"template {template!r}: the tokenizer did not keep {mask!r} as one token")
    return Encoded(tuple(ids[i] for i in keep), keep.index(at), sum(owner[i] is not None for i in keep))


def text_set(tokenizer: Any, kind: Kind, template: str, texts: Sequence[Text], longest: int) -> TextSet:
    """Fill `template` with each of `texts` and tokenise it, as `encode` does, with a checkpoint before each text."""
    encoded = []
    for text in texts:
        checkpoint()
        encoded.append(encode(tokenizer, kind, template, text, longest))
    return TextSet(tuple(encoded))


def continued(tokenizer: Any, template: str, texts: Sequence[Text], longest: int) -> TextSet:
    """Texts after which a causal model goes on, tokenised as `encode` does, with a checkpoint before each text.

    Raises:
        QueryError: the template is malformed, or does not fit.
    """
    found = []
    for text in texts:
        checkpoint()
        found.append(encode(tokenizer, "causal", f"{template}{{mask}}", text, longest, to_continue=True))
    return TextSet(tuple(found))


def _fill(template: str, text: Text, mask: str, whole: bool) -> tuple[str, list[tuple[int, int]], int]:
    """The filled template, the character span of each text field, and the position of the mask."""
    spans = [(0, 0)] * len(text)
    out, mask_at = "", 0
    for piece in re.split(r"(\{(?:a|b|mask)\})", template):
        if piece == "{mask}":
            mask_at = len(out)
            out += mask
        elif piece in {"{a}", "{b}"}:
            value = text["ab".index(piece[1])].strip()
            spans["ab".index(piece[1])] = (len(out), len(out) + len(value))
            out += value
        else:
            out += piece
    return (out if mask or whole else out.rstrip()), spans, mask_at


def _field(filled: str, span: tuple[int, int], fields: list[tuple[int, int]]) -> int | None:
    """The text field in which a token lies, without spaces at its ends; None if the template or tokenizer added it."""
    first, last = span
    token = filled[first:last]
    if not token.isspace():  # a token of spaces only belongs to the field if all of it lies there
        first, last = first + len(token) - len(token.lstrip()), last - len(token) + len(token.rstrip())
    return next((n for n, (start, stop) in enumerate(fields) if start <= first < last <= stop), None)


def _kept(owner: list[int | None], excess: int) -> list[int] | None:
    """Positions that remain after `excess` text tokens are dropped; None if there are too few text tokens."""
    fields = {n: [i for i, o in enumerate(owner) if o == n] for n in set(owner) - {None}}
    dropped: set[int] = set()
    for _ in range(excess):
        longest = max(fields.values(), key=len, default=[])
        if not longest:
            return None
        dropped.add(longest.pop())
    return [i for i in range(len(owner)) if i not in dropped]
