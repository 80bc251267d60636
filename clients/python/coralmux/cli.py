"""`coralmux`: pairs, lists and revokes the devices of an agent, and takes over the token of the old Python connector."""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

from . import commands, pairing, state
from .agent import ENV_RELAY, CommandError, link_of, say, state_path, version
from .register import TOKEN
from .relay_url import RelayUrl, RelayUrlError
from .state import Lock, State, StateError

OLD_CONFIGS = "~/.openclaw-agent/config.yaml", "~/.openclaw-relay-connector/config.yaml"
OLD_TOKEN = "OPENCLAW_RELAY_TOKEN"
CONFIG_BYTES_MAX = 1 << 20


def main(arguments: list[str] | None = None) -> None:
    """Runs the command; exits with 1 and words if it fails, with 2 if it is not one."""
    parser = argparse.ArgumentParser(prog="coralmux", description=__doc__)
    parser.add_argument("--version", action="version", version=version())
    words = parser.add_subparsers(dest="command", required=True)
    whose = argparse.ArgumentParser(add_help=False)
    whose.add_argument(
        "--relay", default=os.environ.get(ENV_RELAY, ""), help=f"such as wss://relay.example.com [{ENV_RELAY}]"
    )
    whose.add_argument("--state", help="where the pairing is kept [a file for each relay, as of coralmux-agent]")
    shows = argparse.ArgumentParser(add_help=False)
    shows.add_argument("--qr", choices=("app", "browser", "both", "none"), default="both", help="which codes to show")
    link = words.add_parser(
        "link", parents=[whose, shows], help="show the pairing link of an agent that has been started before"
    )
    link.add_argument("--e2e", choices=("1", "2"), default="2", help="1: for phones that know no other encryption")
    link.set_defaults(run=_link)
    pair = words.add_parser("pair", parents=[whose, shows], help="pair another device with the agent that runs")
    pair.set_defaults(run=_pair)
    words.add_parser("devices", parents=[whose], help="list the devices of the agent that runs").set_defaults(run=_ask)
    revoke = words.add_parser("revoke", parents=[whose], help="revoke a device, and what it has invited")
    revoke.add_argument("device", help="its id, as `devices` lists it; plain: phones that know no devices")
    revoke.add_argument("--keep-invited", action="store_true", help="keep the devices that it has invited")
    revoke.set_defaults(run=_ask)
    owner = words.add_parser("owner", parents=[whose], help="name the device that may revoke all others")
    owner.add_argument("device", help="its id, as `devices` lists it")
    owner.set_defaults(run=_ask)
    take = words.add_parser("take-over", help="take over the token of the old Python connector (openclaw-agent)")
    take.add_argument("config", nargs="?", help=f"its configuration [{OLD_CONFIGS[0]}]")
    take.add_argument("--state", help="where to keep it [as above]")
    take.set_defaults(run=_take_over)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except KeyboardInterrupt:
        sys.exit(130)
    except (CommandError, RelayUrlError, StateError) as error:
        sys.exit(f"coralmux: {error}")


def _kept(options: argparse.Namespace) -> tuple[RelayUrl, Path, State]:
    """The pairing that is meant, and where it is kept."""
    relay = RelayUrl.parse(options.relay)
    path = state_path(relay, options.state)
    kept, warning = state.read(path)
    if warning:
        print(warning, file=sys.stderr)
    if kept is None:
        raise CommandError(f"no pairing is kept in {path}: start the agent first")
    return relay, path, kept


def _pair(options: argparse.Namespace) -> None:
    _, path, kept = _kept(options)
    commands.pair(path, kept, options.qr)


def _ask(options: argparse.Namespace) -> None:
    _, path, kept = _kept(options)
    names = "device", "keep_invited"
    about = {name: getattr(options, name) for name in names if hasattr(options, name)}
    commands.ask(path, kept, {"do": options.command} | about)


def _link(options: argparse.Namespace) -> None:
    relay, path, kept = _kept(options)
    say(pairing.instructions(link_of(path, relay, kept, int(options.e2e)), options.qr, pairing.has_colours()))


def _take_over(options: argparse.Namespace) -> None:
    relay_text, token, found = _old_pairing(options.config)
    relay = RelayUrl.parse(relay_text)
    path = state_path(relay, options.state)
    with Lock(path):
        kept, _ = state.read(path)
        if kept and kept.token != token:
            raise CommandError(f"{path} has another pairing: remove it, or name another file with --state")
        if kept is None:
            state.write(path, relay, State.begun(token))
    more = f" --state {path}" if options.state else ""
    say(
        f"The token of {found} is kept in {path} now, for `coralmux-agent` and for this package.\n"
        "Stop the connector: a token has one agent.\n"
        f"Pair the phone with `coralmux link --relay {relay}{more}`: the new link has a key, which verifies all.\n"
        "A phone that is to stay as it is needs an agent with --e2e 1 (here: Agent(..., e2e=1))."
    )


def _old_pairing(named: str | None) -> tuple[str, str, str]:
    """The relay and the token of the connector's configuration, and where they were. It is YAML, of which this reads
    what the connector writes: `url` and `token` in the block `relay`."""
    paths = [Path(path).expanduser() for path in ((named,) if named else OLD_CONFIGS)]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise CommandError(f"there is no {' and no '.join(map(str, paths))}: name the connector's configuration")
    try:
        with open(path, errors="replace") as file:
            lines = file.read(CONFIG_BYTES_MAX).splitlines()
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror or error}") from None
    values: dict[str, str] = {}
    block = None
    for line in lines:
        if top := re.match(r"(\w+):", line):
            block = top[1]
        elif block == "relay" and (entry := re.match(r"\s+(url|token):\s*(.*)", line)):
            values[entry[1]] = _scalar(entry[2])
    token = values.get("token") or os.environ.get(OLD_TOKEN, "")
    if not TOKEN.fullmatch(token):
        raise CommandError(f"{path} has no token (relay: token:), and {OLD_TOKEN} has none either")
    if "url" not in values:
        raise CommandError(f"{path} has no relay address (relay: url:)")
    return values["url"], token, str(path)


def _scalar(text: str) -> str:
    """A YAML value as the connector reads it: quoted or not, with `${NAME}` from the environment."""
    matched = re.match(r"'([^']*)'|\"([^\"]*)\"|([^#]*?)\s*(?:\s#.*)?$", text)
    value = next((group for group in matched.groups() if group is not None), "") if matched else ""
    return re.sub(r"\$\{(\w+)\}", lambda name: os.environ.get(name[1], ""), value)
