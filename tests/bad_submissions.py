"""Bad submissions, as a worker meets them: they fail at import, crash, exit, take all memory, send junk."""

from __future__ import annotations

TUNE = "def tune(lm, task, shots, rng, config):\n    yield Answer.of(task)\n    "
BAD: dict[str, tuple[str, str, str]] = {
    "import-error": ("import a_module_that_is_not_there", "crashed", "No module named 'a_module_that_is_not_there'"),
    "syntax-error": ("def tune(:", "crashed", "SyntaxError"),
    "null-bytes": ("tune = search\0", "crashed", "null bytes"),
    "exit-at-import": ("os._exit(7)", "crashed", "exit code 7"),
    "leave-at-import": ("sys.exit(0)", "crashed", "SystemExit"),
    "kill-at-import": ("os.kill(os.getpid(), 9)", "killed", ""),
    "abort-at-import": ("os.abort()", "crashed", "exit code -"),
    "raise-at-import": ("raise BaseException('no')", "crashed", "BaseException: no"),
    "nested": ("x = " + "(" * 100_000, "crashed", "Error"),
    "no-tune": ("nothing = 1", "crashed", "no function tune"),
    "no-config": ("tune = search\nConfig = 3", "crashed", "no dataclass Config"),
    "raises": (TUNE + "1 / 0", "crashed", "ZeroDivisionError"),
    "recursion": (TUNE + "f = lambda: f()\n    f()", "crashed", "RecursionError"),
    "exit": (TUNE + "os._exit(3)", "crashed", "exit code 3"),
    "kill": (TUNE + "os.kill(os.getpid(), 9)", "killed", ""),
    "hoard": (TUNE + "bytearray(1 << 40)", "out_of_memory", "MemoryError"),
    "no-answer": ("def tune(lm, task, shots, rng, config):\n    return\n    yield", "no_answer", ""),
    "no-generator": ("def tune(lm, task, shots, rng, config):\n    return 3", "crashed", "`yield answer`"),
    "other-answer": ("def tune(lm, task, shots, rng, config):\n    yield 3", "invalid_answer", "tune yielded int"),
    "noise": (TUNE + "os.write(1, bytes(range(256)) * 99)\n    raise ValueError('\\x1b[2J')", "crashed", "ValueError"),
    "junk": (TUNE + "lm._sock.sendall(b'junk' * 99)\n    time.sleep(9)", "protocol_error", "frame"),
    "dear": (TUNE + "yield Answer((Member('a ' * 2000 + task.template, task.words),) * 64)", "invalid_answer", ""),
    "space": (TUNE + "s = Subspace(10_000_000, (1.0,), 2, seed=1)\n    lm.logits(s.at(np.zeros(10_000_000)), "
              "shots.train.texts)", "out_of_memory", "MiB are free"),
}  # fmt: skip
"""By name: source, status of its cells, and what is told. `killed` is told as a crash or as missing memory."""
