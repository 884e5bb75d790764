"""Rows and tokens of a cell of `official`, task by task, for the arithmetic of docs/scale.md.

    python benchmarks/kit_tokens.py path/to/competition

Texts come from a directory in the competition kit's layout, tokens from the embedded model's tokenizer (WordPiece, as
many as RoBERTa's own within some percent) with the 50 prompt tokens of the track added to each text.
"""

from __future__ import annotations

import sys
from pathlib import Path

from harness.lm import embedded
from harness.tracks.examples import Source, load_shots, load_test, splits_of
from harness.tracks.tasks import load_task
from harness.tracks.track import load_track

PROMPT_TOKENS = 50


def main() -> None:
    """Print a line per task."""
    source, track = Source("kit", Path(sys.argv[1])), load_track("official")
    tokenizer = embedded.tokenizer(embedded.package_folder())

    def tokens(texts: tuple[tuple[str, ...], ...], template: str) -> int:
        filled = [template.format(mask="[MASK]", **dict(zip("ab", text, strict=False))) for text in texts]
        return sum(len(ids) + PROMPT_TOKENS for ids in tokenizer(filled)["input_ids"])

    for name, spec in track.tasks.items():
        file = load_task(name)
        template = file.task("harness-2026", "masked").template
        (first, *_) = splits_of(file, source, spec, present_only=True)
        train, test = load_shots(file, source, first, spec).train, load_test(file, source)
        call, scored = tokens(train.texts, template), tokens(test.texts, template)
        budget = f"{spec.calls:,} calls: {spec.calls * call / 1e6:.1f} M tokens"
        print(f"{name}: {len(train)} rows and {call:,} tokens a call, {budget}; "
              f"test {len(test):,} texts, {scored / 1e6:.3f} M tokens")  # fmt: skip


if __name__ == "__main__":
    main()
