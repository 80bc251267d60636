#!/usr/bin/env python3
"""Maintains the advisories about the crates that the project uses, and gives them to cargo-deny without a network.

    advisories.py renew [DATABASE]     rewrites advisories.toml from a clone of the RustSec database; without an argument
                                       downloads one (`make advisories`)
    advisories.py database DIRECTORY   creates a database for cargo-deny from advisories.toml (`make lint`)

advisories.toml records its date and the crates that were looked up. A crate that was not looked up is an error: there may
be an advisory about it.
"""

import argparse
import datetime
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE = Path(__file__).resolve().parent / "advisories.toml"
SOURCE = "https://github.com/RustSec/advisory-db"
# The folder under db-path where cargo-deny expects the clone of SOURCE.
CLONE = "advisory-db-3157b0e258782691"
# After that many days each lint says that the table is due.
DUE_DAYS = 60

HEAD = f"""\
# What the RustSec database ({SOURCE}) says about the crates of Cargo.lock: which versions an advisory
# is about, and where to read more. Written by advisories.py; `make advisories` renews it.
"""


def used_crates(lock: Path) -> set[str]:
    packages = tomllib.loads(lock.read_text())["package"]
    return {package["name"] for package in packages if "source" in package}


def read_advisory(path: Path) -> dict | None:
    """The facts of one file of the database; None for one that was withdrawn."""
    front = path.read_text().split("```toml", 1)[1].split("```", 1)[0]
    facts = tomllib.loads(front)
    advisory = facts["advisory"]
    if "withdrawn" in advisory:
        return None
    versions = facts.get("versions", {})
    found = {"id": advisory["id"], "crate": advisory["package"], "date": str(advisory["date"])}
    if "informational" in advisory:
        found["kind"] = advisory["informational"]
    for key in ("patched", "unaffected"):
        if versions.get(key):
            found[key] = versions[key]
    return found


def in_toml(value: str | list[str]) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(in_toml, value)) + "]"
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def write_table(table: Path, date: str, commit: str, crates: set[str], advisories: list[dict]) -> None:
    lines = [HEAD, f'date = "{date}"', f'commit = "{commit}"', "", "advisories = ["]
    for advisory in sorted(advisories, key=lambda it: (it["crate"], it["id"])):
        lines.append("    { " + ", ".join(f"{key} = {in_toml(value)}" for key, value in advisory.items()) + " },")
    lines += ["]", "", "# The crates that were looked up.", "crates = ["]
    lines += [f'    "{name}",' for name in sorted(crates)]
    table.write_text("\n".join([*lines, "]", ""]))


def git(directory: Path, *args: str, **environment: str) -> str:
    done = subprocess.run(
        ["git", "-C", directory, *args], env=os.environ | environment, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def renew(database: Path, lock: Path, table: Path) -> None:
    crates = used_crates(lock)
    files = [path for name in sorted(crates) for path in sorted((database / "crates" / name).glob("*.md"))]
    advisories = [advisory for path in files if (advisory := read_advisory(path))]
    date = git(database, "log", "-1", "--format=%cs")
    write_table(table, date, git(database, "rev-parse", "HEAD"), crates, advisories)
    print(f"{table.name}: {len(advisories)} advisories about {len(crates)} crates, of {date}")


def as_file(advisory: dict) -> str:
    """An advisory in the form of the database, with what the table has of it."""
    kind = [f"informational = {in_toml(advisory['kind'])}"] if "kind" in advisory else []
    versions = [f"{key} = {in_toml(advisory.get(key, []))}" for key in ("patched", "unaffected")]
    fields = [f"{key} = {in_toml(advisory[name])}" for key, name in (("id", "id"), ("package", "crate"), ("date", "date"))]
    lines = ["```toml", "[advisory]", *fields, *kind, "", "[versions]", *versions, "```", ""]
    return "\n".join([*lines, f"# An advisory about {advisory['crate']}", "", "The link says what it is.", ""])


def make_database(directory: Path, lock: Path, table: Path) -> None:
    facts = tomllib.loads(table.read_text())
    if unknown := used_crates(lock) - set(facts["crates"]):
        names = ", ".join(sorted(unknown))
        sys.exit(f"{table.name} is older than {names}: `make advisories` looks up what is known about new crates")
    clone = directory / CLONE
    shutil.rmtree(clone, ignore_errors=True)
    for advisory in facts["advisories"]:
        path = clone / "crates" / advisory["crate"] / f"{advisory['id']}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(as_file(advisory))
    # cargo-deny takes a clone of a repository, and tells its age by the last commit.
    when = f"{facts['date']}T00:00:00Z"
    git(clone, "init", "--quiet")
    git(clone, "add", ".")
    identity = ("-c", "user.name=advisories", "-c", "user.email=advisories@localhost", "-c", "commit.gpgsign=false")
    git(clone, *identity, "commit", "--quiet", "-m", facts["commit"], GIT_COMMITTER_DATE=when, GIT_AUTHOR_DATE=when)
    days = (datetime.date.today() - datetime.date.fromisoformat(facts["date"])).days
    if days > DUE_DAYS:
        print(f"warning: the advisories are of {facts['date']}, {days} days ago; `make advisories` renews them")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lock", type=Path, default=ROOT / "Cargo.lock", help="the lock file whose crates count")
    parser.add_argument("--table", type=Path, default=TABLE, help="instead of advisories.toml")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("renew").add_argument("database", type=Path, nargs="?")
    commands.add_parser("database").add_argument("directory", type=Path)
    args = parser.parse_args()
    if args.command == "database":
        make_database(args.directory, args.lock, args.table)
    elif args.database:
        renew(args.database, args.lock, args.table)
    else:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["git", "clone", "--quiet", "--depth=1", SOURCE, folder], check=True)
            renew(Path(folder), args.lock, args.table)


main()
