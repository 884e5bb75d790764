"""One attack without any sandbox, in a process of its own: the positive control. Run it unprivileged.

python bare.py FOLDER MODULE.FUNCTION SITUATION
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from types import SimpleNamespace

if __name__ == "__main__":
    if os.geteuid() == 0:
        raise SystemExit("an attack without a sandbox runs as an ordinary user, or not at all")
    sys.dont_write_bytecode = True
    folder, attack, situation = sys.argv[1:]
    sys.path.insert(0, folder)
    module, _, name = attack.partition(".")
    at = SimpleNamespace(**json.loads(situation))
    try:
        evidence = getattr(importlib.import_module(module), name)(at)
        print(f"escaped: {evidence!r:.200}" if evidence else "blocked", flush=True)
    except Exception as problem:
        print(f"blocked: {type(problem).__name__}: {problem}", flush=True)
