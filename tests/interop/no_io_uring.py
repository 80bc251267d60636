"""A seccomp filter that forbids io_uring, for a process about to be executed."""

import ctypes
import errno

# As io_uring_setup is numbered on all systems; the two that follow it are io_uring_enter and io_uring_register.
CALLS = range(425, 428)


def _instruction(code, jump_true, jump_false, value):
    return code.to_bytes(2, "little") + bytes((jump_true, jump_false)) + value.to_bytes(4, "little")


def forbid(answer=errno.EPERM):
    """From now on each of the calls fails: EPERM is how Docker's profile answers, ENOSYS how some runtimes do."""
    calls = len(CALLS)
    program = b"".join((
        _instruction(0x20, 0, 0, 0),  # the call's number
        *(_instruction(0x15, calls - index, 0, number) for index, number in enumerate(CALLS)),
        _instruction(0x06, 0, 0, 0x7FFF0000),  # anything else is allowed
        _instruction(0x06, 0, 0, 0x00050000 | answer),
    ))  # fmt: skip

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]

    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    filter = Program(len(program) // 8, program)
    assert libc.prctl(22, 2, ctypes.byref(filter), 0, 0) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
