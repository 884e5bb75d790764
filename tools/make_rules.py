"""Writes the tables of docs/rules-reference.md from the track and task files, so that rules and code cannot differ.

python tools/make_rules.py            write docs/rules-reference.md
python tools/make_rules.py --check    exit 1 if the page is not what would be written
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from harness.leaderboard.power import CHANCES
from harness.leaderboard.stats import carries_ranks
from harness.leaderboard.table import write_text
from harness.leaderboard.tells import tells
from harness.results.status import COUNTS, FAILED, MEANING
from harness.tracks.tasks import load_task, task_names
from harness.tracks.track import Track, load_track, track_names, track_tasks

PAGE = Path(__file__).resolve().parent.parent / "docs" / "rules-reference.md"


def tables() -> dict[str, str]:
    """Each generated block by name."""
    tracks = [load_track(name) for name in track_names()]
    return {
        "tracks": _track_table(tracks),
        "tasks": "\n\n".join(_task_table(track) for track in tracks),
        "wordings": "\n\n".join(_wording_table(profile) for profile in _profiles(tracks)),
        "statuses": _status_table(),
        "limits": _limits_table(tracks),
        "tells": _tells_table(tracks),
        "answer-limits": _answer_limits_table(tracks),
    }


def filled(text: str) -> str:
    """The text of the page with every ``<!-- generated: NAME -->`` block replaced.

    Raises:
        ValueError: a block is missing in the text.
    """
    for name, table in tables().items():
        start, end = f"<!-- generated: {name} -->", f"<!-- end: {name} -->"
        if start not in text or end not in text:
            raise ValueError(f"{PAGE.name} lacks the block {start} … {end}; put both lines where the table belongs")
        before, _, rest = text.partition(start)
        text = f"{before}{start}\n{table}\n{end}{rest.partition(end)[2]}"
    return text


def _track_table(tracks: list[Track]) -> str:
    rows = ["| track | model | numbers | data | wording | device | prompt tokens | rules version |", "|---" * 8 + "|"]
    for t in tracks:
        device = t.device_name or t.device
        revision = f" at {t.model.revision[:12]}" if t.model.revision else ""
        model = t.model.source + revision + (", head bias zeroed" if t.model.zero_head_bias else "")
        row = (
            f"`{t.name}`",
            model,
            " or ".join(t.model.allowed),
            t.data.source,
            t.profile,
            device,
            t.prompt.tokens,
            t.rules,
        )
        rows.append("| " + " | ".join(map(str, row)) + " |")
    return "\n".join(rows)


def _task_table(track: Track) -> str:
    files = track_tasks(track)
    heading = "| task | metric | calls | tokens of a row | splits | train + dev per class |"
    rows = [f"**{track.name}**", "", heading, "|---" * 6 + "|"]
    for name, spec in track.tasks.items():
        splits = "those in the data directory" if spec.splits == "present" else ", ".join(map(str, spec.splits))
        metric = {"macro_f1": "macro-F1", "f1": "F1 of class 1"}.get(files[name].metric, files[name].metric)
        drawn = "as in the data directory" if track.data.source == "kit" else f"{spec.shots} + {spec.dev}"
        size = "any" if spec.tokens_of_a_row is None else f"{spec.tokens_of_a_row:,}"
        rows.append(f"| {name} | {metric} | {spec.calls:,} | {size} | {splits} | {drawn} |")
    return "\n".join(rows)


def _profiles(tracks: list[Track]) -> list[str]:
    """Each profile a track names, once."""
    return list(dict.fromkeys(track.profile for track in tracks))


def _wording_table(profile: str) -> str:
    rows = [f"**{profile}**", "", "| task | template | label words, in class order |", "|---" * 3 + "|"]
    for name in task_names():
        found = load_task(name).profiles.get(profile)
        if found is not None:
            words = " ".join(f"`{word}`" for word in found.masked.words)
            rows.append(f"| {name} | `{found.masked.template}` | {words} |")
    return "\n".join(rows)


def _status_table() -> str:
    rows = ["| status | meaning | the last answer |", "|---" * 3 + "|"]
    for name, meaning in MEANING.items():
        use = "is scored" if name in COUNTS else f"the cell {FAILED}"
        rows.append(f"| `{name}` | {meaning} | {use} |")
    return "\n".join(rows)


def _limits_table(tracks: list[Track]) -> str:
    rows = ["| track | wall clock a cell | worker memory | answer | frame | kept output |", "|---" * 6 + "|"]
    for t in tracks:
        x = t.limits
        sizes = f"{x.memory_gb:g} GiB | {x.answer_mb} MiB | {x.frame_mb} MiB | {x.output_kb} KiB"
        rows.append(f"| `{t.name}` | {x.wall_s:,.0f} s | {sizes} |")
    return "\n".join(rows)


def _tells_table(tracks: list[Track]) -> str:
    seen = " | ".join(f"lead seen in {10 * chance:.0f} of 10" for chance in CHANCES)
    rows = [f"| track | carries ranks | measured with | standard error | {seen} |", "|---" * 7 + "|"]
    for t in tracks:
        splits = [0 if spec.splits == "present" else len(spec.splits) for spec in t.tasks.values()]
        ranks = "by the splits of the directory" if 0 in splits else "yes" if carries_ranks(splits) else "no"
        found = tells(t, None)
        shown = ["not measured yet", *["-"] * 4]
        if found:
            leads = (f"{100 * found.lead(chance):.1f} points" for chance in CHANCES)
            shown = [f"{found.entries} entries", f"{100 * found.error:.2f} points", *leads]
        rows.append("| " + " | ".join((f"`{t.name}`", ranks, *shown)) + " |")
    return "\n".join(rows)


def _answer_limits_table(tracks: list[Track]) -> str:
    heading = "| track | time on the test set | tokens for each text | projections | heads | all kept answers |"
    rows = [heading, "|---" * 6 + "|"]
    for t in tracks:
        x = t.limits.answers
        sizes = " | ".join(f"{size >> 20:,} MiB" for size in (x.projection_bytes, x.head_bytes, x.kept_bytes))
        rows.append(f"| `{t.name}` | {x.seconds:,.0f} s | {x.tokens:,} | {sizes} |")
    return "\n".join(rows)


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description="Refresh the generated tables of docs/rules-reference.md.")
    parser.add_argument("--check", action="store_true", help="only say whether they are up to date")
    check = parser.parse_args().check
    text = PAGE.read_text(encoding="utf-8")
    fresh = filled(text)
    if check:
        print(f"{PAGE.name} is up to date" if fresh == text else f"{PAGE.name} is stale; run: make rules")
        return int(fresh != text)
    write_text(fresh, PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
