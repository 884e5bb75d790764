"""Writes the system call filters of the sandbox, ``harness/sandbox/seccomp-<machine>.bpf``, with libseccomp.

A call that is not allowed fails as if it did not exist (ENOSYS), so the C library uses an older one (clone3 -> clone,
openat2 -> openat). A call whose refusal programs can handle fails with EPERM. Run this again after an edit:

    python tools/make_seccomp.py            # write
    python tools/make_seccomp.py --check    # compare with what is there

Needs ``pip install pyseccomp`` and libseccomp2; the harness itself needs neither.
"""

from __future__ import annotations

import argparse
import errno
import sys
import tempfile
from pathlib import Path

import pyseccomp
from pyseccomp import EQ, GT, LE, MASKED_EQ, NE, Arch, Arg, SyscallFilter

ROOT = Path(__file__).resolve().parents[1]
MACHINES = {"x86_64": Arch.X86_64, "aarch64": Arch.AARCH64}

ALLOWED = """
    read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 close close_range lseek
    open openat stat fstat lstat newfstatat statx statfs fstatfs access faccessat faccessat2
    readlink readlinkat getcwd getdents getdents64 fadvise64 dup dup2 dup3 pipe pipe2 eventfd2
    poll ppoll select pselect6 epoll_create1 epoll_ctl epoll_wait epoll_pwait
    recvfrom sendto shutdown getsockopt getsockname getpeername
    mmap munmap mprotect mremap madvise mincore msync brk membarrier mlock munlock
    futex futex_waitv set_robust_list rseq set_tid_address restart_syscall
    exit exit_group sched_yield sched_get_priority_max sched_get_priority_min getcpu
    getpid gettid getppid getpgrp getuid geteuid getgid getegid getresuid getresgid getgroups
    nanosleep gettimeofday time times getrusage getrlimit sysinfo uname
    getrandom rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigsuspend rt_sigtimedwait sigaltstack
    alarm pause setitimer getitimer
"""
"""Computing, reading, waiting, and using sockets that are open already."""

REFUSED = """
    fork vfork execve execveat kill tkill tgkill ptrace setsid setpgid setpriority
    socket socketpair connect bind listen accept accept4 sendmsg recvmsg setsockopt
    creat mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2 link linkat symlink symlinkat mknod mknodat
    chmod fchmod fchmodat chown fchown lchown fchownat utime utimes utimensat futimesat truncate ftruncate fallocate
    fsync fdatasync sync_file_range flock
    setxattr lsetxattr fsetxattr mount umount2 chroot unshare setns memfd_create
    setuid setgid setreuid setregid setresuid setresgid setgroups setrlimit
    sched_setaffinity sched_setparam sched_setscheduler shmget shmat shmctl msgget semget
"""
"""Calls that libraries try and whose refusal they handle. All other calls of the kernel seem not to exist."""

OF_A_PROCESS = "getpgid getsid get_robust_list sched_getaffinity sched_getparam sched_getscheduler"
"""Calls about any process whose number is given: here about the caller alone, which is number 0."""
OF_A_CLOCK = "clock_gettime clock_getres clock_nanosleep"
_LAST_CLOCK = 11
"""CLOCK_TAI. Beyond it, and below 0, are the clocks of other processes and of devices."""

_CLONE_THREAD, _CLONE_NEW = 0x00010000, 0x7E020080  # all namespaces: NEWNS, NEWCGROUP, NEWUTS … NEWNET, NEWTIME
FCNTL = (0, 1, 2, 3, 4, 1030)  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC: no locks, no owners
IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
PRCTL = (3, 15, 16, 0x53564D41)  # GET_DUMPABLE, SET_NAME, GET_NAME, SET_VMA
ARCH_PRCTL = (0x1021, 0x1022, 0x1023)  # which vector units there are, and permission to use AMX


def build(machine: str) -> bytes:
    """The filter for one machine type, in the kernel's format."""
    refuse = pyseccomp.ERRNO(errno.EPERM)
    found = SyscallFilter(pyseccomp.ERRNO(errno.ENOSYS))
    if not found.exist_arch(MACHINES[machine]):
        found.add_arch(MACHINES[machine])
        found.remove_arch(Arch.NATIVE)
    for name in ALLOWED.split():
        found.add_rule(pyseccomp.ALLOW, name)
    for name in REFUSED.split():
        found.add_rule(refuse, name)
    found.add_rule(pyseccomp.ALLOW, "clone", Arg(0, MASKED_EQ, _CLONE_THREAD | _CLONE_NEW, _CLONE_THREAD))
    found.add_rule(refuse, "clone", Arg(0, MASKED_EQ, _CLONE_THREAD, 0))
    found.add_rule(pyseccomp.ALLOW, "prlimit64", Arg(0, EQ, 0), Arg(2, EQ, 0))
    for name in OF_A_PROCESS.split():
        found.add_rule(pyseccomp.ALLOW, name, Arg(0, EQ, 0))
        found.add_rule(refuse, name, Arg(0, NE, 0))
    for name in OF_A_CLOCK.split():
        found.add_rule(pyseccomp.ALLOW, name, Arg(0, LE, _LAST_CLOCK))
        found.add_rule(refuse, name, Arg(0, GT, _LAST_CLOCK))
    for name, position, values in (
        ("fcntl", 1, FCNTL), ("ioctl", 1, IOCTL), ("prctl", 0, PRCTL), ("arch_prctl", 0, ARCH_PRCTL),
    ):  # fmt: skip
        for value in values:
            found.add_rule(pyseccomp.ALLOW, name, Arg(position, EQ, value))
    with tempfile.TemporaryFile() as file:
        found.export_bpf(file)
        file.seek(0)
        return file.read()


def shipped(machine: str) -> Path:
    """Path of the filter."""
    return ROOT / "harness" / "sandbox" / f"seccomp-{machine}.bpf"


def main() -> None:
    """Write or check all filters."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with what is there, and write nothing")
    check = parser.parse_args().check
    for machine in MACHINES:
        made, path = build(machine), shipped(machine)
        if check and (not path.is_file() or path.read_bytes() != made):
            sys.exit(f"{path} is not what tools/make_seccomp.py makes; run it and commit what it writes")
        if not check:
            path.write_bytes(made)
        print(f"{path.name}: {len(made) // 8} instructions")


if __name__ == "__main__":
    main()
