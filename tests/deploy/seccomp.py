"""A seccomp profile in Docker's form, made into a filter of this process as Docker does it for a container."""

import errno
import json
import os

import pyseccomp

# As Go names what uname names otherwise.
GO_ARCHES = {"x86_64": "amd64", "aarch64": "arm64"}
OPERATIONS = {
    "SCMP_CMP_NE": pyseccomp.NE,
    "SCMP_CMP_LT": pyseccomp.LT,
    "SCMP_CMP_LE": pyseccomp.LE,
    "SCMP_CMP_EQ": pyseccomp.EQ,
    "SCMP_CMP_GE": pyseccomp.GE,
    "SCMP_CMP_GT": pyseccomp.GT,
    "SCMP_CMP_MASKED_EQ": pyseccomp.MASKED_EQ,
}


def read(path):
    with open(path) as file:
        return json.load(file)


def applies(entry, caps=frozenset()):
    """Whether an entry counts here, for a container with these capabilities."""
    uname = os.uname()
    arch = GO_ARCHES[uname.machine]
    kernel = tuple(int(number) for number in uname.release.split("-")[0].split(".")[:2])
    includes, excludes = entry.get("includes", {}), entry.get("excludes", {})
    if "arches" in includes and arch not in includes["arches"] or arch in excludes.get("arches", ()):
        return False
    if not caps.issuperset(includes.get("caps", ())) or caps.intersection(excludes.get("caps", ())):
        return False
    least = includes.get("minKernel")
    return least is None or kernel >= tuple(int(number) for number in least.split("."))


def action(name, errno_return):
    if name == "SCMP_ACT_ALLOW":
        return pyseccomp.ALLOW
    if name == "SCMP_ACT_ERRNO":
        return pyseccomp.ERRNO(errno.EPERM if errno_return is None else errno_return)
    raise ValueError(f"an action that Docker's default profile does not have: {name}")


def comparison(arg):
    operation = OPERATIONS[arg["op"]]
    return pyseccomp.Arg(arg["index"], operation, arg["value"], arg.get("valueTwo", 0))


def filter_of(profile):
    """The filter, not yet in force."""
    made = pyseccomp.SyscallFilter(action(profile["defaultAction"], profile.get("defaultErrnoRet")))
    for entry in filter(applies, profile["syscalls"]):
        for name in entry["names"]:
            try:
                number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
            except (OSError, ValueError):
                # A call that this libseccomp does not know: the filter forbids it, as with Docker.
                continue
            args = [comparison(arg) for arg in entry.get("args") or ()]
            made.add_rule(action(entry["action"], entry.get("errnoRet")), number, *args)
    return made
