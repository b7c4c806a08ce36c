"""Runs a command all of whose calls to the kernel about files are held until a supervisor lets them go.

``launch.py FD NUMBERS COMMAND...``: installs a seccomp filter for the system calls of these numbers, sends
the descriptor on which the kernel tells of them over the socket FD, and becomes the command.
"""

import ctypes
import os
import socket
import sys

_NO_NEW_PRIVILEGES = 38
_SECCOMP = 317
_SET_FILTER, _NEW_LISTENER = 1, 8
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ASK, _ALLOW = 0x7FC00000, 0x7FFF0000


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("jump_true", ctypes.c_ubyte),
        ("jump_false", ctypes.c_ubyte),
        ("operand", ctypes.c_uint),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.POINTER(_Instruction)))


def _listener(numbers: list[int]) -> int:
    """The descriptor of a filter that asks about the calls of these numbers and allows all others."""
    written = [_Instruction(_LOAD, 0, 0, 0)]
    for position, number in enumerate(numbers):
        written.append(_Instruction(_IF_EQUAL, len(numbers) - position, 0, number))
    written += [_Instruction(_RETURN, 0, 0, _ALLOW), _Instruction(_RETURN, 0, 0, _ASK)]
    program = _Program(len(written), (_Instruction * len(written))(*written))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    descriptor = int(libc.syscall(_SECCOMP, _SET_FILTER, _NEW_LISTENER, ctypes.byref(program)))
    if descriptor < 0:
        sys.exit(f"no filter of system calls here: {os.strerror(ctypes.get_errno())}")
    return descriptor


with socket.socket(fileno=int(sys.argv[1])) as supervisor:
    socket.send_fds(supervisor, [b"."], [_listener([int(number) for number in sys.argv[2].split(",")])])
os.execv(sys.argv[3], sys.argv[3:])
