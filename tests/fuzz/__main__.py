"""Fuzz the readers of files that are not trusted.

Usage, in the directory `tests`:

    python -m fuzz                              # all readers, ten minutes each
    python -m fuzz gguf sentencepiece --minutes 1
    python -m fuzz gguf --replay DIRECTORY      # what a finding does, with its traceback
"""

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_CPU_SECONDS = 40  # for one file; more than the 20 that the guard reports
_WALL_SECONDS = 900

_ABOUT = """\
Every reader starts from small valid files. Again and again one of them is changed a little: its
bytes, its numbers, its lines, the values in its JSON. Then it is read, and what was read is used.
Either that works, or it raises PresetError. Anything else is a finding: another exception, a
crash, a file or process beyond the preset, a gibibyte of memory, twenty seconds. A file that
reaches lines of nextword that none reached before is changed further.

What led to a finding is kept, a directory each, with the traceback; --replay reads it again."""


def main() -> int:
    """Run the campaigns that the command line asks for; return how many findings there are."""
    parser = argparse.ArgumentParser(
        prog="python -m fuzz",
        description=_ABOUT,
        epilog="The exit status is 1 where there is a finding. Nothing is downloaded. A minute of "
        "each reader, one after the other: python -m fuzz --minutes 1",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("readers", nargs="*", metavar="READER", help="default: all; see --list")
    parser.add_argument("--list", action="store_true", help="list the readers, and what they read")
    parser.add_argument("--minutes", type=float, default=10.0, help="for each reader (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the random changes (%(default)s)")
    parser.add_argument(
        "--findings", type=Path, metavar="DIR", help="where to keep what is found; default: a new "
        "temporary directory"
    )  # fmt: skip
    parser.add_argument("--replay", type=Path, metavar="DIR", help="read one finding again")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        _work(arguments.readers[0], arguments.worker, arguments.seed, arguments.minutes * 60)
        return 0

    from fuzz.readers import READERS

    unknown = [name for name in arguments.readers if name not in READERS]
    if unknown:
        parser.error(f"no reader {unknown[0]!r}; there are {', '.join(READERS)}")
    if arguments.list:
        print("\n".join(f"{name:18}{reader.about}" for name, reader in READERS.items()))
        return 0
    names = arguments.readers or list(READERS)
    if arguments.replay is not None:
        path = next(path for path in arguments.replay.iterdir() if path.name != "what.txt")
        READERS[names[0]].use(path)
        return 0
    root = arguments.findings or Path(tempfile.mkdtemp(prefix="fuzz-"))
    found = [_supervise(name, root / name, arguments.seed, arguments.minutes) for name in names]
    return int(any(found))


def _supervise(name: str, root: Path, seed: int, minutes: float) -> bool:
    """Fuzz a reader in a process of its own, and in another where that one dies; print a report."""
    from fuzz.campaign import keep

    end = time.monotonic() + minutes * 60
    totals: dict[str, int] = {"inputs": 0, "accepted": 0, "lines reached": 0}
    findings: dict[str, int] = {}
    crashes = 0
    while (left := end - time.monotonic()) > 0 and crashes < 20:
        work = Path(tempfile.mkdtemp(prefix="fuzz-"))
        command = [sys.executable, "-m", "fuzz", name, "--worker", str(work)]
        command += ["--seed", str(seed + crashes), "--minutes", str(left / 60)]
        status = subprocess.run(command, check=False).returncode
        tally = work / "tally.json"
        if not tally.exists():
            raise SystemExit(f"The campaign of {name} did not begin: status {status}.")
        summary = json.loads(tally.read_text())
        totals["inputs"] += summary["inputs"]
        totals["accepted"] += summary["accepted"]
        totals["lines reached"] = max(totals["lines reached"], summary["lines reached"])
        for what, count in summary["findings"].items():
            findings[what] = findings.get(what, 0) + count
        if status != 0:
            crashes += 1
            died = signal.Signals(-status).name if status < 0 else f"status {status}"
            findings[died] = findings.get(died, 0) + 1
            preset = Path((work / "current").read_text())
            keep(preset, root / "crashes", died)
        if (work / "findings").exists():
            shutil.copytree(work / "findings", root / str(crashes), dirs_exist_ok=True)
        shutil.rmtree(work)
    print(f"{name}: {json.dumps(totals)}", flush=True)
    for what, count in sorted(findings.items(), key=lambda item: -item[1]):
        print(f"    {count:6} x {what}", flush=True)
    if findings:
        print(f"    kept in {root}", flush=True)
    return bool(findings)


def _work(name: str, directory: Path, seed: int, seconds: float) -> None:
    """Fuzz a reader until the time is over; whatever kills this process is a finding."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from fuzz.campaign import Campaign, save_tally
    from fuzz.readers import READERS

    campaign = Campaign(READERS[name], directory, seed)
    end, saved = time.monotonic() + seconds, 0.0
    while time.monotonic() < end:
        # Without a handler these signals end the process, native code that hangs included.
        signal.setitimer(signal.ITIMER_PROF, _CPU_SECONDS)
        signal.setitimer(signal.ITIMER_REAL, _WALL_SECONDS)
        campaign.step(directory / "current")
        if time.monotonic() - saved > 1:
            save_tally(campaign.tally, directory / "tally.json")
            saved = time.monotonic()
    save_tally(campaign.tally, directory / "tally.json")


if __name__ == "__main__":
    sys.exit(main())
