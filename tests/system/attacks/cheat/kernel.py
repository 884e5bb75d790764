"""Doors of the kernel that no submission needs. Most have had holes."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
from pathlib import Path
from typing import Any

from calls import call, number, system_call

_NEW_USER, _NEW_MOUNT, _NEW_NET = 0x10000000, 0x00020000, 0x40000000


def make_a_user_namespace(at: Any) -> str:
    """Root of one's own, and with it most of the kernel's code."""
    call("unshare", _NEW_USER)
    return "made"


def clone_into_a_user_namespace(at: Any) -> str:
    """The same by another call."""
    child = system_call("clone", _NEW_USER | 17, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return "made"


def clone_by_the_new_call(at: Any) -> str:
    """``clone3`` takes its flags from memory, where a filter cannot look."""
    arguments = (ctypes.c_uint64 * 11)(0, 0, 0, 0, 17)
    child = system_call("clone3", ctypes.byref(arguments), 88)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return "made"


def make_a_network_namespace(at: Any) -> str:
    """Only root may; who can is root."""
    call("unshare", _NEW_NET)
    return "made"


def mount_over(at: Any) -> str:
    """Put something else where the referee reads; on the scratch directory of this test."""
    call("mount", b"none", at.scratch.encode(), b"tmpfs", 0, None)
    return "mounted"


def mount_by_the_new_calls(at: Any) -> str:
    """``fsopen``."""
    return f"file system {system_call('fsopen', b'tmpfs', 0)}"


def change_the_root(at: Any) -> str:
    """``chroot``."""
    os.chroot(at.scratch)
    return "changed"


def enter_other_namespaces(at: Any) -> str:
    """Be where the referee is."""
    call("setns", os.open(f"/proc/{at.referee}/ns/mnt", os.O_RDONLY), 0)
    return "entered"


def become_root(at: Any) -> str:
    """What was dropped is taken up again."""
    os.setresuid(0, 0, 0)
    return "root"


def take_capabilities(at: Any) -> str:
    """Any capability that acts on others is one too many; reading through directories is not."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("CapEff:"):
            return hex(held) if (held := int(line.split()[1], 16) & ~(1 << 2)) else ""
    return ""


def use_keys(at: Any) -> int:
    """The kernel's keys of this user's session."""
    return 1 + abs(system_call("keyctl", 0, -4, 1))


def load_a_program_into_the_kernel(at: Any) -> str:
    """``bpf``: make a map."""
    attributes = (ctypes.c_uint32 * 32)(2, 4, 8, 1)
    return f"map {system_call('bpf', 0, ctypes.byref(attributes), 128)}"


def count_events(at: Any) -> str:
    """``perf_event_open``: a clock and a view into the processor, of this process alone."""
    attributes = (ctypes.c_uint64 * 16)(1 | (128 << 32), 1)
    attributes[5] = 0b1100001  # disabled, without kernel and hypervisor
    return f"event {system_call('perf_event_open', ctypes.byref(attributes), 0, -1, -1, 0)}"


def handle_page_faults(at: Any) -> str:
    """``userfaultfd``: stop the kernel in the middle of a copy."""
    return f"descriptor {system_call('userfaultfd', 1)}"


def forget_where_things_are(at: Any) -> str:
    """``personality``: switch address randomisation off."""
    system_call("personality", 0x0040000)
    return "switched"


def use_the_other_table_of_calls(at: Any) -> str:
    """x32 numbers reach the same functions by another table."""
    if platform.machine() != "x86_64":
        return ""
    number(0x40000000 + 39)  # getpid
    return "answered"


def use_calls_of_32_bits(at: Any) -> str:
    """``int 0x80``: numbers of another machine, 20 is getpid there."""
    if platform.machine() != "x86_64":
        return ""
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20; int 0x80; ret
    run = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    return "answered" if run() == os.getpid() else ""


def reach_the_devices(at: Any) -> list[str]:
    """Disks, memory, terminals."""
    found = []
    for name in ("mem", "kmsg", "vda", "sda", "tty", "ptmx", "fuse", "kvm", "net/tun", "shm"):
        try:
            os.close(os.open(f"/dev/{name}", os.O_RDONLY | os.O_NONBLOCK))
        except OSError:
            continue
        found.append(name)
    return found


def type_into_the_terminal(at: Any) -> str:
    """``TIOCSTI`` puts characters into the organiser's shell."""
    import fcntl

    fcntl.ioctl(os.open("/dev/tty", os.O_RDWR), 0x5412, b"\n")
    return "typed"
