"""A machine to install things on: this machine's file tree under a disposable overlay, entered by chroot, or
booted with its own systemd as PID 1 (systemd-nspawn); or a tree with little more than BusyBox."""

import contextlib
import os
import pathlib
import re
import secrets
import shutil
import signal
import subprocess
import time

BOOT_TIMEOUT = 90
COMMAND_TIMEOUT = 120
# Of this machine, and not of the new one.
FOREIGN = ("etc/hostname", "usr/local/bin/coralmux-relay", "etc/coralmux")


def program_of(pid):
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except FileNotFoundError:
        return None  # gone since it was listed


class Machine:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.root = self.folder / "root"
        self.mounted = []
        self.enter = ["chroot", str(self.root)]

    def __enter__(self):
        # Overlays want an upper layer on a file system that is no overlay itself.
        self.mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", self.folder)
        for name in ("upper", "work", "root"):
            (self.folder / name).mkdir()
        layers = f"lowerdir=/,upperdir={self.folder}/upper,workdir={self.folder}/work"
        self.mount("-t", "overlay", "-o", layers, "overlay", self.root)
        for name in FOREIGN:
            subprocess.run(["rm", "-rf", self.root / name], check=True)
        return self

    def __exit__(self, *_):
        for target in reversed(self.mounted):
            subprocess.run(["umount", "--lazy", target], check=True)

    def mount(self, *args):
        subprocess.run(["mount", *map(str, args)], check=True)
        self.mounted.append(str(args[-1]))

    def with_devices(self):
        """What a program may expect of a machine without an init: /dev, /proc, an empty /run and /tmp."""
        self.mount("--bind", "/dev", self.root / "dev")
        self.mount("-t", "proc", "proc", self.root / "proc")
        self.mount("-t", "tmpfs", "tmpfs", self.root / "run")
        self.mount("-t", "tmpfs", "tmpfs", self.root / "tmp")
        return self

    def run(self, *command, env=None, stdin=""):
        """A command there; both its streams are in stdout."""
        return subprocess.run(
            [*self.enter, *map(str, command)],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_TIMEOUT,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **(env or {})},
        )

    def must(self, *command, env=None, stdin=""):
        done = self.run(*command, env=env, stdin=stdin)
        assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def path(self, absolute):
        """Where a file of that machine is on this one."""
        return self.root / absolute.lstrip("/")


class Bare(Machine):
    """With BusyBox, and nothing else but what it is given: no init, no curl, no bash, no way to check a signature."""

    def __enter__(self):
        self.mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", self.folder)
        for name in ("bin", "etc", "dev", "proc", "run", "tmp", "root"):
            (self.root / name).mkdir(parents=True)
        (self.root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        busybox = shutil.which("busybox")
        shutil.copy(busybox, self.root / "bin/busybox")
        self.must("/bin/busybox", "--install", "-s", "/bin")
        return self.with_devices()

    def give(self, *programs, libraries_of=()):
        """Puts programs of this machine there, and the libraries that these and others need."""
        for program in programs:
            self.copy(shutil.which(program))
        for program in (*map(shutil.which, programs), *libraries_of):
            listed = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
            for library in re.findall(r"(/\S+) \(0x", listed):
                self.copy(library)

    def copy(self, file):
        target = self.path(file)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            shutil.copy(file, target)


class Booted(Machine):
    """With systemd as its PID 1, and the network of this machine or, `private`, nothing but a loopback of its own."""

    def __init__(self, folder, private=False):
        super().__init__(folder)
        self.private = private
        self.init = None

    def __enter__(self):
        super().__enter__()
        # With an identity it is no machine that boots for the first time, which would turn on what Debian's presets say.
        (self.root / "etc/machine-id").write_text(secrets.token_hex(16) + "\n")
        self.console = self.folder.with_name("console")
        # nspawn forbids io_uring as container engines do; a machine of its own would not.
        boot = [
            "systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--directory", self.root, "--console=pipe",
            "--system-call-filter=io_uring_setup io_uring_enter io_uring_register",
        ]  # fmt: skip
        if self.private:
            boot.append("--private-network")
        boot += ["--boot", "systemd.unit=basic.target"]
        # nspawn keeps things under /run that it wants on a file system in memory.
        shell = 'mount -t tmpfs -o mode=755 tmpfs /run && exec "$@"'
        with open(self.console, "wb") as console:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", shell, "boot", *map(str, boot)],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )
        try:
            self.await_boot()
        except BaseException:
            self.__exit__()
            raise
        return self

    def await_boot(self):
        deadline = time.monotonic() + BOOT_TIMEOUT
        while True:
            assert self.process.poll() is None and time.monotonic() < deadline, self.console.read_text(errors="replace")
            children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            for child in children:
                if program_of(child) == "systemd":
                    self.init = int(child)
                    self.enter = ["nsenter", f"--target={child}", "--mount", "--pid", "--uts", "--ipc", "--cgroup"]
                    self.enter += ["--net", "--root", "--wd"]
                    state = self.run("systemctl", "is-system-running").stdout.strip()
                    if state in ("running", "degraded"):
                        return
            time.sleep(0.1)

    def __exit__(self, *_):
        # The end of its PID 1 is the end of all that runs there, and then of nspawn; not the other way round.
        if self.init is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.init, signal.SIGKILL)
        else:
            self.process.kill()
        self.process.wait(COMMAND_TIMEOUT)
        super().__exit__()
