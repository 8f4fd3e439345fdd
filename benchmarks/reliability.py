"""Kills, damaged files, edited config.json files and random configurations: each case's outcome, and their counts.

    python -m benchmarks.reliability [--work runs/reliability]

To be run in the repository's folder. A case's outcome is a file in the folder ``--work``, and no case is run twice:
after a stop the same command continues, and several processes can share the work. The one that finds all cases done
writes the counts. An outcome in capital letters is a fault (a wrong number, a traceback, a dead end); then the exit
code is 1.
"""

import argparse
import fcntl
import json
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import damage, kills
from benchmarks.random_configurations import FAMILIES, outcome
from metarl.learning.learner import LEARNERS
from metarl.run.config_file import recorded_versions
from metarl.storage.files import write_json

RESULTS = Path(__file__).parent / "results" / "reliability.json"
RANDOM_KILLS, DAMAGED, CONFIGURATIONS = 25, 520, 40  # of each learner
Case = Callable[[int], tuple[str, str]]


def cases(folder: Path) -> Iterator[tuple[str, str, int, Case]]:
    """Yield the kinds of cases: name, learner, number of cases, and the function that runs the case of a number."""
    for learner in kills.WORDS:
        killed = kills.Kills(learner, folder)
        yield "killed at a write of a file", learner, killed.points, killed.at_a_write
        yield "killed at random moments", learner, RANDOM_KILLS, killed.at_random
    for learner in damage.WORDS:
        damaged = damage.Damages(learner, folder)
        yield "a damaged file", learner, DAMAGED, damaged.damaged
        yield "an edited config.json", learner, len(damaged.edits), damaged.edited
    for learner in sorted(LEARNERS):
        yield "a random configuration", learner, CONFIGURATIONS, configuration(learner)


def configuration(learner: str) -> Case:
    """Return the function that trains a random configuration of a learner."""
    return lambda number: outcome(learner, FAMILIES[number % len(FAMILIES)], number)


def make(place: Path, case: Case, number: int) -> bool:
    """Run a case, unless it was run or another process is running it; return whether its outcome is there."""
    with open(place.with_suffix(".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if not place.exists():
            found, said = case(number)
            write_json(place, {"outcome": found, "said": said})
            if found.isupper():
                print(f"{place.stem}: {found}\n{said}", flush=True)
    return True


def count(folder: Path) -> bool:
    """Run all cases, print the counts of each kind, and write them when no other process is running one."""
    counts: dict[str, Counter[str]] = {}
    whole = True
    for kind, learner, size, case in cases(folder):
        found = counts.setdefault(kind, Counter())
        for number in range(size):
            place = folder / f"{kind.replace(' ', '-')}-{learner}-{number}.json"
            if make(place, case, number):
                found[json.loads(place.read_text())["outcome"]] += 1
            else:
                whole = False
        print(f"{kind}, up to {learner}: {dict(found)}", flush=True)
    if not whole:
        print("other processes are still running cases; run this again to count them")
        return True
    plain = {kind: dict(sorted(found.items())) for kind, found in counts.items()}
    write_json(RESULTS, {"versions": recorded_versions(), "counts": plain})
    return not any(name.isupper() for found in counts.values() for name in found)


def table(path: Path = RESULTS) -> str:
    """Return the counts as a Markdown table."""
    rows = ["| what was done | times | outcomes |", "|---|---|---|"]
    for kind, found in json.loads(path.read_text())["counts"].items():
        said = ", ".join(f"{name} {number}" for name, number in sorted(found.items(), key=lambda pair: -pair[1]))
        rows.append(f"| {kind} | {sum(found.values())} | {said} |")
    return "\n".join(rows)


def main() -> int:
    """Run the missing cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/reliability"), help="folder of the outcomes")
    options = parser.parse_args()
    try:
        options.work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"cannot make {options.work}: {error.strerror}; choose another --work")
    warnings.simplefilter("ignore")
    return 0 if count(options.work) else 1


if __name__ == "__main__":
    sys.exit(main())
