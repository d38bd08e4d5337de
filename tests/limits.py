"""Limits of time and memory that a call must keep."""

import contextlib
import pathlib
import resource
import signal


class Hang(BaseException):
    """Something ran longer than it may. No `except Exception` catches it."""


@contextlib.contextmanager
def time_limit(seconds):
    def too_long(*_):
        raise Hang(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def memory():
    """The memory that the process holds now, in MiB."""
    pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize() / 2**20


def peak_memory():
    """The most memory that the process has held since `forget_peak`, in MiB."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmHWM")


def forget_peak():
    """Lets the peak begin anew, where the system allows it."""
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/clear_refs").write_text("5")
