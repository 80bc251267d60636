"""Becomes a program inside a container's bounds, as far as a kernel without an engine goes: a mount namespace with the
image as its read-only root, the image's user, no capabilities, no new privileges, a seccomp filter.

    python contain.py SPEC      (a JSON object, see Spec in image.py; needs root)
"""

import ctypes
import json
import os
import resource
import sys

import seccomp

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
CAPABILITIES = 64

libc = ctypes.CDLL(None, use_errno=True)


def call(name, *args):
    encoded = [os.fsencode(arg) if isinstance(arg, (str, os.PathLike)) else arg for arg in args]
    if getattr(libc, name)(*encoded) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}{args}: {os.strerror(number)}")


def enter_tree(spec):
    """Makes the image's tree this process's root."""
    root = spec["root"]
    call("unshare", CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC)
    call("mount", None, "/", None, MS_REC | MS_PRIVATE, None)
    call("mount", root, root, None, MS_BIND, None)
    call("mount", "proc", f"{root}/proc", "proc", MS_NOSUID | MS_NODEV, None)
    call("mount", "sysfs", f"{root}/sys", "sysfs", MS_RDONLY | MS_NOSUID, None)
    for source, target in spec["volumes"].items():
        call("mount", source, f"{root}{target}", None, MS_BIND, None)
    call("mount", None, root, None, MS_REMOUNT | MS_BIND | MS_RDONLY, None)
    os.chroot(root)
    os.chdir(spec["workdir"])


def drop_rights(user, group):
    for capability in range(CAPABILITIES):
        # Fails for numbers that this kernel has no capability for.
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.setgroups([])
    os.setgid(group)
    os.setuid(user)
    call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def main():
    spec = json.loads(sys.argv[1])
    made = seccomp.filter_of(spec["seccomp"]) if spec["seccomp"] else None
    for name, value in spec["ulimits"].items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name.upper()}"), (value, value))
    if spec["root"]:
        enter_tree(spec)
    drop_rights(*spec["user"])
    if made:
        made.load()
    os.execve(spec["argv"][0], spec["argv"], spec["env"])


main()
