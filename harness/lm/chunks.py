"""How a query is cut into chunks that are computed at once, so that memory is bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def cut_by_tokens(
    lengths: Sequence[int], candidates: int, reads: int, most: int, together: bool
) -> Iterator[tuple[slice, slice]]:
    """Cut texts, longest first, x candidates; pad tokens are at most a fifth of a padded text.

    If candidates are computed `together`, a chunk has at most `most` tokens over all candidates, pad tokens included.
    Otherwise it has at most `most` tokens of one candidate, and at most `most` states read over all candidates.
    """
    first = 0
    while first < len(lengths):
        longest = lengths[first]
        fit = max(1, most // (longest * candidates if together else longest))
        last = first + 1
        while last < len(lengths) and last - first < fit and lengths[last] * 5 >= longest * 4:
            last += 1
        size = max(1, most // ((longest if together else reads) * (last - first)))
        for start in range(0, candidates, size):
            yield slice(first, last), slice(start, min(start + size, candidates))
        first = last


def cut_by_reads(lengths: Sequence[int], candidates: int, reads: int, most: int) -> Iterator[tuple[slice, slice]]:
    """Cut texts of at most `most` tokens x candidates of at most `most` states read."""
    first = 0
    while first < len(lengths):
        fit = max(1, most // (reads * candidates))
        last, tokens = first + 1, lengths[first]
        while last < len(lengths) and last - first < fit and tokens + lengths[last] <= most:
            tokens += lengths[last]
            last += 1
        size = max(1, most // (reads * (last - first)))
        for start in range(0, candidates, size):
            yield slice(first, last), slice(start, min(start + size, candidates))
        first = last


def cut_by_padding(lengths: Sequence[int], price: int) -> list[slice]:
    """Cut texts, longest first, so that pad tokens and chunks cost least together.

    Args:
        lengths: tokens of each text, descending.
        price: what a chunk costs by itself, in tokens.

    Returns:
        The chunks with the smallest sum of tokens, pad tokens included, and prices.
    """
    ends = [n for n in range(1, len(lengths) + 1) if n == len(lengths) or lengths[n] < lengths[n - 1]]
    best: dict[int, tuple[int, int]] = {0: (0, 0)}  # by end: the cost up to there, and where the last chunk starts
    for end in ends:
        best[end] = min((cost + price + lengths[start] * (end - start), start) for start, (cost, _) in best.items())
    found, end = list[slice](), len(lengths)
    while end > 0:
        start = best[end][1]
        found.append(slice(start, end))
        end = start
    return found[::-1]


def padded(rows: Sequence[tuple[int, ...]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids, padded on the right with `pad`, and where there is a token: both (rows, longest)."""
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), pad, dtype=torch.int64)
    mask = torch.zeros((len(rows), longest), dtype=torch.bool)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.int64)
        mask[row, : len(tokens)] = True
    return ids, mask
