# SPDX-License-Identifier: LGPL-2.1-or-later
"""Forged and mutated packets, a million each, to the agent, a listener and the sender.

    python -m tools.forged [--each N]

All over loopback, to the programs themselves, and to a kdumpfence.Listener in a process of its own;
agent and listener on both cores, the sender in all its forms, with an equal share each. It says how
many of which kind were sent to whom. The exit status is 1 if one was believed, if more came back
than was sent, if one was not read, or if the node itself was not believed any more.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from tests.conftest import CORES
from tests.support.programs import FORMS, environment
from tools.markedtable import ROOT
from tools.ownnetwork import own_network

FORMS_OF = {"agent": CORES, "listener": CORES, "sender": FORMS}
AT_ONCE = 2


class Outcome(NamedTuple):
    """`sent`: how many of which kind. `complaint`: "" if all is well."""

    target: str
    form: str
    sent: dict[str, int]
    complaint: str


def run(target: str, form: str, number: int) -> Outcome:
    """So many forgeries to one of them."""
    argv = [sys.executable, "-m", "tests.property.forged", target, form, str(number)]
    done = subprocess.run(
        [*own_network(), *argv],
        cwd=ROOT,
        env=environment(form),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return Outcome(target, form, {}, done.stderr or f"ended with {done.returncode}")
    return Outcome(target, form, json.loads(done.stdout), "")


def table(outcomes: list[Outcome]) -> str:
    """What was sent: a row for each kind, a column for each of FORMS_OF."""
    kinds = dict.fromkeys(kind for outcome in outcomes for kind in outcome.sent)
    rows = [["", *FORMS_OF]]
    for kind in (*kinds, "together"):
        row = [kind]
        for target in FORMS_OF:
            of = [outcome.sent for outcome in outcomes if outcome.target == target]
            number = sum(
                sum(sent.values()) if kind == "together" else sent.get(kind, 0) for sent in of
            )
            row.append(f"{number:,}" if number else "-")
        rows.append(row)
    return "\n".join(f"{row[0]:30}" + "".join(f"{cell:>12}" for cell in row[1:]) for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--each", type=int, default=1_000_000, help="to each of the three")
    each = parser.parse_args().each
    outcomes = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        jobs = [
            pool.submit(run, target, form, each // len(forms))
            for target, forms in FORMS_OF.items()
            for form in forms
        ]
        for job in jobs:
            outcome = job.result()
            outcomes.append(outcome)
            number = sum(outcome.sent.values())
            said = outcome.complaint or f"{number:,} forgeries, none believed"
            print(f"{outcome.target} ({outcome.form}): {said}", flush=True)
    print()
    print(table(outcomes))
    bad = [outcome for outcome in outcomes if outcome.complaint]
    print()
    if bad:
        print(f"FAILED: {', '.join(f'{one.target} ({one.form})' for one in bad)}")
    else:
        print("None was believed, no answer was larger than its question, and the node itself was")
        print("believed after each wait, session and start.")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
