"""What Linux itself keeps a process from: limits, namespaces, Landlock, seccomp. Python's own modules alone, since it
is run in the process that is about to be shut in.

Sources: landlock(7), seccomp(2), user_namespaces(7), of the Linux manual."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
from collections.abc import Iterable
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_NEWUSER, _NEWNET, _NEWIPC, _NEWUTS = 0x10000000, 0x40000000, 0x08000000, 0x04000000
_NO_NEW_PRIVS, _SET_SECCOMP, _SET_DUMPABLE, _FILTER = 38, 22, 4, 2

# Rights of Landlock: reading; and what each version of it added to the right to write.
_READ = 1 << 2 | 1 << 3
_ALL = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_OF_FILES = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14

_MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
# Calls of the kernel by name: their numbers on x86-64 and on 64-bit ARM (-1: not there).
_REFUSED = {
    "socket": (41, 198), "fork": (57, -1), "vfork": (58, -1), "execve": (59, 221), "execveat": (322, 281),
    "kill": (62, 129), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "shmget": (29, 194), "shmat": (30, 196),
    "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180), "setrlimit": (160, 164),
    "prlimit64": (302, 261), "personality": (135, 92), "chroot": (161, 51), "pivot_root": (155, 41),
    "mount": (165, 40), "umount2": (166, 39), "open_tree": (428, 428), "move_mount": (429, 429),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "unshare": (272, 97), "setns": (308, 268), "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225),
    "acct": (163, 89), "quotactl": (179, 60), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "sethostname": (170, 161), "setdomainname": (171, 162), "iopl": (172, -1), "ioperm": (173, -1),
}  # fmt: skip
# Landlock does not look at modes, owners and times of files: they stay as they are, and the caller is told it is done.
_IGNORED = {
    "chmod": (90, -1), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, -1),
    "fchown": (93, 55), "lchown": (94, -1), "fchownat": (260, 54), "utime": (132, -1), "utimes": (235, -1),
    "futimesat": (261, -1), "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
}  # fmt: skip
_CLONE, _CLONE3, _TGKILL, _THREAD = (56, 220), (435, 435), (234, 131), 0x00010000
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_EPERM, _ENOSYS = 1, 38


def limited(seconds: int, memory: int, files: int, file_size: int, processes: bool) -> None:
    """Limits that cannot be raised again. processes: whether others may be begun."""
    for what, limit in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_NOFILE, files),
        (resource.RLIMIT_FSIZE, file_size),
        (resource.RLIMIT_CORE, 0),
        *(() if processes else ((resource.RLIMIT_NPROC, 1),)),
    ):
        _, most = resource.getrlimit(what)
        if most == resource.RLIM_INFINITY or limit < most:
            # Of time a second more until it is killed: at first it is told.
            resource.setrlimit(what, (limit, limit + (what == resource.RLIMIT_CPU)))


def without_network() -> bool:
    """A network of one's own, with nobody on it. False where the kernel does not give one."""
    user, group = os.getuid(), os.getgid()
    if _LIBC.unshare(_NEWUSER | _NEWNET | _NEWIPC | _NEWUTS) != 0:
        return False
    try:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            Path(f"/proc/self/{name}").write_text(text)
    except OSError:
        pass  # then it is nobody there, which is less
    return True


def within_folders(readable: Iterable[str], writable: Iterable[str]) -> int:
    """Shut out of all files but those below these folders (files by themselves, too). Gives Landlock's version, 0 where
    the kernel has none."""
    version = _LIBC.syscall(444, None, 0, 1)
    if version < 1:
        return 0
    everything = _ALL[max(known for known in _ALL if known <= version)]
    net = 3 if version >= 4 else 0  # TCP: neither waiting for others nor going to them
    scoped = 3 if version >= 6 else 0  # no signals and no sockets to processes outside
    attributes = struct.pack("QQQ", everything, net, scoped)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    rules = _LIBC.syscall(444, attributes, len(attributes), 0)
    if rules < 0:
        return 0
    try:
        for paths, rights in ((readable, _READ), (writable, everything)):
            for path in paths:
                _allow(rules, path, rights)
        _LIBC.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
        return version if _LIBC.syscall(446, rules, 0) == 0 else 0
    finally:
        os.close(rules)


def _allow(rules: int, path: str, rights: int) -> None:
    try:
        at = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there need not be read
    try:
        if not Path(path).is_dir():
            rights &= _OF_FILES
        _LIBC.syscall(445, rules, 1, struct.pack("=Qi", rights, at), 0)
    finally:
        os.close(at)


def without_calls() -> bool:
    """No other processes, no sockets, no signals to others, nothing that reaches past this process. Threads are fine.
    False where the kernel, or this machine's kind, does not do it."""
    if platform.machine() not in _MACHINES or struct.calcsize("P") != 8:
        return False
    architecture, column = _MACHINES[platform.machine()]
    steps = _program(architecture, column)
    code = b"".join(struct.pack("HBBI", *one) for one in steps)
    kept = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxP", len(steps), ctypes.addressof(kept))
    _LIBC.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    _LIBC.prctl(_SET_DUMPABLE, 0, 0, 0, 0)
    return _LIBC.prctl(_SET_SECCOMP, _FILTER, ctypes.create_string_buffer(program), 0, 0) == 0


def _program(architecture: int, column: int) -> list[tuple[int, int, int, int]]:
    """A filter of calls, as classic BPF: (code, jump if true, jump if false, operand)."""
    load, equal, bits, above, end = 0x20, 0x15, 0x45, 0x35, 0x06
    number, machine, first = 0, 4, 16  # places in what the kernel shows of a call

    def refuse(errno: int) -> tuple[int, int, int, int]:
        return (end, 0, 0, _ERRNO | errno)

    steps = [(load, 0, 0, machine), (equal, 1, 0, architecture), (end, 0, 0, _KILL), (load, 0, 0, number)]
    if column == 0:  # the numbers of x32 are the same calls again
        steps += [(above, 0, 1, 0x40000000), (end, 0, 0, _KILL)]
    for calls, errno in ((_REFUSED, _EPERM), (_IGNORED, 0)):
        for numbers in calls.values():
            if numbers[column] >= 0:
                steps += [(equal, 0, 1, numbers[column]), refuse(errno)]
    steps += [(equal, 0, 1, _CLONE3[column]), refuse(_ENOSYS)]  # its flags cannot be seen; `clone` is taken instead
    steps += [(equal, 0, 3, _CLONE[column]), (load, 0, 0, first), (bits, 1, 0, _THREAD), refuse(_EPERM)]
    steps += [(load, 0, 0, number)]
    steps += [(equal, 0, 3, _TGKILL[column]), (load, 0, 0, first), (equal, 1, 0, os.getpid()), refuse(_EPERM)]
    return [*steps, (end, 0, 0, _ALLOW)]
