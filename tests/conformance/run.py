"""The Autobahn cases against the relay's echo listener, by way of the `kosoku` runner.

    python tests/conformance/run.py

Runs the 301 cases outside groups 12 and 13 (permessage-deflate, which the relay declines by contract). Fails where a
case fails, where the number of cases is another, and where a case is NON-STRICT or UNIMPLEMENTED without a reason in
`non_strict.toml`. `--report DIR` writes Autobahn's HTML report, arguments behind it select cases (`1.*`).
"""

import argparse
import asyncio
import collections
import pathlib
import sys
import tempfile
import tomllib

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "interop"))

from kosoku import FailureError, run_fuzzingclient  # noqa: E402
from kosoku._report import write_reports  # noqa: E402
from relay import Relay, free_port  # noqa: E402

CASES = 301
EXCLUDED = ["12.*", "13.*"]
# Cases 9.1.6 and 9.2.6 echo 16 MiB in one message.
FLAGS = ["--max-message", "16MiB", "--max-unauthenticated-per-address", "0"]
PARALLEL = 4


async def run(url, cases):
    try:
        return await run_fuzzingclient(url, cases or None, EXCLUDED, concurrency=PARALLEL)
    except FailureError as failure:
        return failure.results


def judge(result, reasons):
    """Why a case is a failure, or None."""
    verdict, closing = result.behavior.value, result.behavior_close.value
    if not result.passed:
        return f"{verdict}, close {closing}: {result.result} {result.result_close}"
    if "NON-STRICT" in (verdict, closing) and result.case_id not in reasons:
        return f"NON-STRICT without a reason in non_strict.toml: {result.result}"
    return None


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--report", metavar="DIR", help="write the HTML report there")
    options.add_argument("case", nargs="*", help="case ids or globs; all without")
    options = options.parse_args()
    reasons = tomllib.loads((HERE / "non_strict.toml").read_text())
    with tempfile.TemporaryDirectory(prefix="coralmux-conformance-") as directory:
        echo = f"127.0.0.1:{free_port()}"
        relay = Relay(directory, "--echo-addr", echo, *FLAGS).start()
        try:
            results = asyncio.run(run(f"ws://{echo}/", options.case))
            assert relay.running(), f"the relay ended during the run:\n{relay.log()}"
        except BaseException:
            relay.kill()
            raise
        relay.stop()
    if options.report:
        write_reports(results, options.report)
    failures = {r.case_id: why for r in results if (why := judge(r, reasons))}
    for case_id, why in failures.items():
        print(f"case {case_id}: {why}")
    verdicts = collections.Counter(r.behavior.value for r in results)
    print("verdicts:", ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items())))
    listed = {r.case_id for r in results if r.behavior.value == "NON-STRICT"}
    for case_id in sorted(set(reasons) - listed) if not options.case else []:
        print(f"case {case_id} is listed in non_strict.toml, but was strict this time")
    missing = 0 if options.case else CASES - len(results)
    if missing:
        print(f"{len(results)} cases ran, and not {CASES}")
    print(f"conformance: {len(results) - len(failures)} passed, {len(failures)} failed")
    return 1 if failures or missing or not results else 0


if __name__ == "__main__":
    sys.exit(main())
