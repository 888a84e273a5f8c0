"""The fence around a process that runs a stranger's code. `close_fence()` is called in it, first, and has no way back.

Everywhere there are limits of memory, processor time and files, and Python itself refuses sockets, programs, threads,
signals and writing. That keeps out accidents and first ideas, but not somebody who knows how to go round Python.
On Linux (x86-64 and 64-bit ARM) the kernel refuses the same, and it cannot be gone round: *Landlock* (Linux 5.13) lets
the process write nowhere, and read only Python, mixlab and the system's libraries, so neither the other submissions nor
the teacher's files; *seccomp* refuses every call that makes a socket, a process, a thread or a signal, or that changes a
file's owner, rights or times. Both need no privileges, and work in a container.
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
NETWORK = ("socket", "socketpair", "io_uring_setup")
OTHERS = ("clone", "fork", "vfork", "execve", "execveat", "kill", "tkill", "tgkill", "rt_sigqueueinfo")
OTHERS += (
    "rt_tgsigqueueinfo",
    "pidfd_send_signal",
    "ptrace",
    "process_vm_writev",
    "setpriority",
    "shmget",
    "prlimit64",
)
OTHERS += ("prlimit64",)  # of another process: it would end it
FILES = ("truncate", "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat", "utime")
FILES += ("utimes", "futimesat", "utimensat", "setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr")
CALLS = (*NETWORK, *OTHERS, *FILES, "fremovexattr", "setxattrat", "removexattrat")
# The kernel's numbers of these calls, in this order, from asm/unistd_64.h and asm-generic/unistd.h; 0: there is none.
NUMBERS = {
    "x86_64": "41 53 425 56 57 58 59 322 62 200 234 129 297 424 101 311 141 29 302 76 90 91 268 452 92 93 94 260 132 "
    "235 261 280 188 189 190 197 198 199 463 466",
    "aarch64": "198 199 425 220 0 0 221 281 129 130 131 138 240 424 117 271 140 194 261 45 0 52 53 452 0 55 0 54 0 "
    "0 0 88 5 6 7 14 15 16 463 466",
}
PROCESSOR = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # as a filter sees it
CLONE3, PERMISSION, NO_SUCH_CALL = 435, 1, 38
SET_NO_NEW_PRIVILEGES, SET_SECCOMP, DIE_WITH_PARENT = 38, 22, 1  # of prctl


def close_fence() -> str:
    """Shut this process in, and say what holds it: "kernel", or "Python" where the kernel does not help."""
    _limit()
    held = "kernel" if _landlock() and _seccomp() else "Python"
    sys.addaudithook(_refuse)
    return held


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
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))


def _refuse(event: str, arguments: tuple) -> None:
    """An audit hook: Python asks it before it does anything that reaches outside."""
    writes = event == "open" and arguments[0] != os.devnull and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    untraced = event == "sys.settrace" and sys._getframe(1).f_globals.get("__name__") != "mixlab.course.exercises"
    if writes or untraced or event.startswith(REFUSED):
        raise PermissionError(f"an exercise needs no {'writing' if writes else event}, so grading refuses it")


def _landlock() -> bool:
    """Read Python, mixlab and the system's libraries; nothing else, and write nowhere."""
    if sys.platform != "linux":
        return False
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
    _prctl(SET_NO_NEW_PRIVILEGES, 1)
    closed = kernel(restrict, rules, 0) == 0
    os.close(rules)
    return closed


def _readable() -> set[str]:
    ours = {str(PACKAGE), sys.prefix, sys.base_prefix, *(path for path in sys.path if os.path.isabs(path))} - {
        str(ROOT)
    }
    system = {"/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/dev/null", "/dev/urandom"}
    return {path for path in ours | system if os.path.exists(path)}


def _seccomp() -> bool:
    """Refuse the calls in CALLS, and give up what root may do."""
    if platform.machine() not in NUMBERS:
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
    steps = [(load, 0, 0, 4), (equal, 1, 0, PROCESSOR[machine]), (answer, 0, 0, kill)]  # calls of another processor
    steps += [(load, 0, 0, 0), (at_least, 0, 1, 0x40000000), (answer, 0, 0, kill)]  # and the x32 twins of these
    for number in filter(None, map(int, NUMBERS[machine].split())):
        steps += [(equal, 0, 1, number), (answer, 0, 0, refuse | PERMISSION)]
    return [*steps, (equal, 0, 1, CLONE3), (answer, 0, 0, refuse | NO_SUCH_CALL), (answer, 0, 0, allow)]


def _prctl(option: int, value: int, pointer: bytes | None = None) -> int:
    return ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), pointer, 0, 0)
