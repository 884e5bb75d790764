"""Publishes the facts behind the results pages: a compressed results database that anybody can audit.

python tools/publish.py --store results/harness.db --out leaderboard/measured.db.xz

The copy is audited before it takes the place of the published one; one that is not in order is not published.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.errors import HarnessError
from harness.results.audit import audit
from harness.results.packed import pack
from harness.results.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

LARGEST_MB = 15


def main(arguments: Sequence[str] | None = None) -> int:
    """Pack, audit, publish."""
    parser = argparse.ArgumentParser(description="Publish a results database.")
    parser.add_argument("--store", type=Path, default=Path("results/harness.db"), help="a SQLite file")
    parser.add_argument("--out", type=Path, default=Path("leaderboard/measured.db.xz"))
    parser.add_argument(
        "--answers", action="store_true", help="Keep the bytes of answers, too; they can be made again by replay."
    )
    given = parser.parse_args(arguments)
    fresh = given.out.with_name(f"new-{given.out.name}")
    try:
        pack(given.store, fresh, answers=given.answers)
        store = Store(str(fresh), create=False)
        found = audit(store)
        store.close()
        size = fresh.stat().st_size / 2**20
        if found.findings:
            count = len(found.findings)
            raise HarnessError(f"{given.store}: {count} findings; run: harness audit --store {given.store}")
        if size > LARGEST_MB:
            raise HarnessError(f"{given.store}: {size:.1f} MiB compressed; at most {LARGEST_MB} are published")
        fresh.replace(given.out)
    except HarnessError as problem:
        parser.error(str(problem))
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
    print(f"{given.out}: {size:.1f} MiB, {len(found.cells)} cells, digest {found.digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
