"""The fence around a process that runs a stranger's code. `close_fence()` is called in it, first, and has no way back.

Everywhere there are limits of memory, processor time and files, and Python itself refuses sockets, programs, threads,
signals and writing. That keeps out accidents and first ideas, but not somebody who knows how to go round Python.
On Linux (x86-64 and 64-bit ARM) the kernel refuses the same, and we know of no way round that: *Landlock* (Linux 5.13)
lets the process write nowhere, and read only Python, mixlab and the system's libraries, so neither the other
submissions nor the teacher's files; *seccomp* refuses every call that makes a socket, a process, a thread or a
signal, or that changes a file's owner, rights or times. Both need no privileges, and work in a container.
References: docs.kernel.org/userspace-api/landlock.html, docs.kernel.org/userspace-api/seccomp_filter.html.
"""

import ctypes
import os
import platform
import struct
import sys

from mixlab.places import PACKAGE, ROOT

MEMORY = 1 << 30  # bytes on top of what Python, NumPy and PyTorch take
SECONDS = 120  # of processor time
REFUSED = ("socket.", "subprocess.", "shutil.", "winreg.", "_thread.start_new_thread", "_winapi.CreateProcess")
REFUSED += tuple(f"os.{name}" for name in ("fork", "exec", "posix_spawn", "spawn", "system", "startfile", "kill"))
REFUSED += tuple(f"os.{name}" for name in ("remove", "rename", "rmdir", "mkdir", "link", "symlink", "truncate"))
REFUSED += tuple(f"os.{name}" for name in ("chmod", "chown", "chflags", "utime", "setxattr", "removexattr"))
# The calls that the kernel refuses, with their numbers on x86-64 and on ARM (asm/unistd_64.h, asm-generic/unistd.h),
# and - where there is none: sockets; other processes, threads and limits; what Landlock leaves open about files.
CALLS = """
socket 41 198, socketpair 53 199, io_uring_setup 425 425,
clone 56 220, fork 57 -, vfork 58 -, execve 59 221, execveat 322 281, kill 62 129, tkill 200 130, tgkill 234 131,
rt_sigqueueinfo 129 138, rt_tgsigqueueinfo 297 240, pidfd_send_signal 424 424, ptrace 101 117,
process_vm_writev 311 271, setpriority 141 140, prlimit64 302 261, shmget 29 194,
truncate 76 45, chmod 90 -, fchmod 91 52, fchmodat 268 53, fchmodat2 452 452, chown 92 -, fchown 93 55, lchown 94 -,
fchownat 260 54, utime 132 -, utimes 235 -, futimesat 261 -, utimensat 280 88, setxattr 188 5, lsetxattr 189 6,
fsetxattr 190 7, setxattrat 463 463, removexattr 197 14, lremovexattr 198 15, fremovexattr 199 16,
removexattrat 466 466
"""
PROCESSORS = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # as a filter sees them
CLONE3, PERMISSION, NO_SUCH_CALL = 435, 1, 38
SET_NO_NEW_PRIVILEGES, SET_SECCOMP, DIE_WITH_PARENT = 38, 22, 1  # of prctl


def close_fence() -> str:
    """Shut this process in, and say what holds it: "kernel", or "Python" where the kernel does not help."""
    _limit()
    linux = sys.platform == "linux" and _prctl(SET_NO_NEW_PRIVILEGES, 1) == 0
    held = [_landlock(), _seccomp()] if linux else [False]
    sys.addaudithook(_refuse)
    return "kernel" if all(held) else "Python"


def _limit() -> None:
    try:
        import resource
    except ImportError:  # Windows has none
        return
    limits = {"CPU": SECONDS, "FSIZE": 0, "CORE": 0, "NOFILE": 64, "NPROC": 0}
    if sys.platform == "linux":
        with open("/proc/self/statm") as sizes:
            limits["AS"] = int(sizes.read().split()[0]) * os.sysconf("SC_PAGE_SIZE") + MEMORY
    for name, most in limits.items():
        limit = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(limit)[1]  # a stricter one may be set already
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (most, most))


def _refuse(event: str, arguments: tuple) -> None:
    """An audit hook: Python asks it before it does anything that reaches outside."""
    writes = event == "open" and arguments[0] != os.devnull and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    untraced = event == "sys.settrace" and sys._getframe(1).f_globals.get("__name__") != "mixlab.course.exercises"
    if writes or untraced or event.startswith(REFUSED):
        raise PermissionError(f"an exercise needs no {'writing' if writes else event}, so grading refuses it")


def _landlock() -> bool:
    """Read Python, mixlab and the system's libraries; nothing else, and write nowhere."""
    create, add, restrict = 444, 445, 446  # the same numbers on every processor
    kernel = ctypes.CDLL(None).syscall
    version = kernel(create, None, 0, 1)
    if version < 1:
        return False
    everything = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1  # the kinds of access that it knows
    wanted = struct.pack("QQQ", everything, 0, 0b11)  # the last: signals and abstract sockets stay inside (Linux 6.12)
    rules = kernel(create, wanted, 24 if version >= 6 else 8, 0)
    for path in _readable():
        place = os.open(path, os.O_PATH)
        kinds = 0b1100 if os.path.isdir(path) else 0b100  # read folders, read files
        kernel(add, rules, 1, struct.pack("=Qi", kinds, place), 0)
        os.close(place)
    closed = kernel(restrict, rules, 0) == 0
    os.close(rules)
    return closed


def _readable() -> set[str]:
    system = {"/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/dev/null", "/dev/urandom"}
    ours = {str(PACKAGE), sys.prefix, sys.base_prefix, *sys.path} - {str(ROOT)}
    return {path for path in ours | system if os.path.isabs(path) and os.path.exists(path)}


def _seccomp() -> bool:
    """Refuse the calls in CALLS, and give up what root may do."""
    if platform.machine() not in PROCESSORS:
        return False
    empty_handed = (ctypes.c_uint32 * 6)()
    ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(0x20080522, 0), empty_handed)
    _prctl(DIE_WITH_PARENT, 9)
    steps = filter_steps(platform.machine())
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    pointer = struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(program))
    return _prctl(SET_SECCOMP, 2, pointer) == 0


def filter_steps(machine: str) -> list[tuple[int, int, int, int]]:
    """The filter: (operation, steps to skip if equal, if not, number). It runs at every call to the kernel."""
    load, equal, at_least, answer = 0x20, 0x15, 0x35, 0x06
    allow, refuse, kill = 0x7FFF0000, 0x00050000, 0x80000000
    steps = [(load, 0, 0, 4), (equal, 1, 0, PROCESSORS[machine]), (answer, 0, 0, kill)]  # calls of another processor
    steps += [(load, 0, 0, 0), (at_least, 0, 1, 0x40000000), (answer, 0, 0, kill)]  # and the x32 twins of these
    for call in CALLS.split(","):
        number = dict(zip(("name", *PROCESSORS), call.split(), strict=True))[machine]
        if number != "-":
            steps += [(equal, 0, 1, int(number)), (answer, 0, 0, refuse | PERMISSION)]
    return [*steps, (equal, 0, 1, CLONE3), (answer, 0, 0, refuse | NO_SUCH_CALL), (answer, 0, 0, allow)]


def _prctl(option: int, value: int, pointer: bytes | None = None) -> int:
    return ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), pointer, 0, 0)
