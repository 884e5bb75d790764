"""The attacks, read from the modules of the cheat, and what is to be expected of each."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from world import CHEAT

if TYPE_CHECKING:
    from collections.abc import Iterator

WALLS = ("labels", "tampering", "others", "network", "bombs", "leftovers", "kernel", "introspection")
"""Modules of attacks on the isolation: each tier has to hold them."""
RULES = ("frames", "replies", "clocks")
"""Modules of attacks on the referee, which holds them in any tier."""

DEADLY = ("kernel.use_the_other_table_of_calls", "kernel.use_calls_of_32_bits")
"""Attacks for which the kernel may end the worker."""
ALONE = ("bombs.become_a_program", "bombs.run_a_program_from_memory", *DEADLY)
"""Attacks that end or replace the worker: others cannot follow in the same one."""

NO_CONTROL = {
    "labels.open_the_labels_by_handle": "needs CAP_DAC_READ_SEARCH, which a worker of a Python under /root has",
    "bombs.raise_own_limits": "only root raises limits",
    "leftovers.leave_a_session": "a group of another session cannot be joined",
    "kernel.make_a_network_namespace": "only root",
    "kernel.mount_over": "only root",
    "kernel.mount_by_the_new_calls": "only root",
    "kernel.change_the_root": "only root",
    "kernel.enter_other_namespaces": "only root",
    "kernel.become_root": "only root",
    "kernel.take_capabilities": "an ordinary user has none",
    "kernel.load_a_program_into_the_kernel": "kernel.unprivileged_bpf_disabled",
    "kernel.count_events": "kernel.perf_event_paranoid",
    "kernel.use_the_other_table_of_calls": "few kernels have x32",
    "kernel.use_calls_of_32_bits": "not all kernels have them",
    "kernel.reach_the_devices": "depends on the machine's devices",
    "kernel.type_into_the_terminal": "there is no terminal",
    "introspection.scan_own_memory": "a process that was not forked from the referee has nothing of it",
    "introspection.climb_the_stack": "the same",
    "introspection.read_own_arguments": "the control is told on its command line",
    "network.open_a_channel_to_the_host": "needs a kernel with vsock",
    "network.open_a_crypto_socket": "needs a kernel with AF_ALG",
    "network.connect_by_tcp_6": "needs IPv6",
}
"""Attacks that need not work for an ordinary user without a sandbox, and why."""

_STAT = (
    "Landlock does not cover stat: size and time of a path that is known; a directory of mode 0700 of root's hides it"
)
KNOWN = {("B", user, "labels.stat_the_labels"): _STAT for user in ("root", "user")}
"""What gets through: (tier, user, attack) and why."""

_ANY_PROTOCOL = {
    "ask_with_a_negative_count", "ask_with_a_count_of_many_digits", "send_a_result", "send_a_job", "send_more_fields",
    "send_a_pickle", "send_a_huge_length", "send_no_length", "send_half_a_frame", "send_nested_arrays",
    "send_an_array_bomb", "send_a_map_bomb", "be_ready_twice", "flood_with_malformed_queries",
}  # fmt: skip
_INVALID = {
    "send_nan_weights", "send_infinite_factors", "send_wrong_shapes", "send_more_classes", "send_members_without_end",
    "send_a_huge_subspace", "send_many_candidates",
}  # fmt: skip

STATUS = {
    **{name: {"ok", "crashed"} for name in DEADLY},
    **{f"frames.{name}": {"protocol_error"} for name in _ANY_PROTOCOL},
    **{f"replies.{name}": {"invalid_answer"} for name in _INVALID},
    "frames.send_descriptors": {"ok", "crashed"},
    "frames.flood_with_refused_queries": {"budget_exhausted"},
    "replies.send_a_million_members": {"protocol_error"},
    "replies.send_a_huge_head": {"protocol_error"},
    "replies.send_an_object": {"protocol_error"},
    "replies.pretend_to_be_an_answer": {"crashed"},
    "clocks.ignore_the_deadline": {"timeout"},
    "clocks.ignore_every_signal": {"timeout"},
    "clocks.patch_the_clocks": {"timeout"},
    "clocks.stop_oneself": {"timeout", "crashed"},
    "clocks.stop_oneself_by_alarm": {"timeout", "crashed"},
    "clocks.drip_a_frame": {"timeout"},
    "clocks.never_read_a_reply": {"timeout"},
}
"""How a cell ends with an attack in it; ``ok`` where nothing is said."""


def attacks(*modules: str) -> list[str]:
    """Names of all attacks in modules, as ``module.function``."""
    return [f"{module}.{name}" for module in modules for name in _public(module)]


def title(attack: str) -> str:
    """What an attack says of itself."""
    module, _, name = attack.partition(".")
    function = next(each for each in _functions(module) if each.name == name)
    return (ast.get_docstring(function) or "").splitlines()[0]


def _public(module: str) -> Iterator[str]:
    for function in _functions(module):
        if not function.name.startswith("_") and [a.arg for a in function.args.args] == ["at"]:
            yield function.name


def _functions(module: str) -> list[ast.FunctionDef]:
    body = ast.parse((CHEAT / f"{module}.py").read_text(encoding="utf-8")).body
    return [node for node in body if isinstance(node, ast.FunctionDef)]
