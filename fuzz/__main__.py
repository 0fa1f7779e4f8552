"""Run the targets one after another, each in its own process, and print the results."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

from .seeds import SEEDS

WORK = Path("build/fuzz")
# Options of libFuzzer: seconds for one input, MiB for the process, bytes of an input.
LIMITS = ["-timeout=30", "-rss_limit_mb=4096", "-max_len=8192"]


def run(target: str, seconds: float) -> bool:
    """Fuzz one target; return True if no fault was found."""
    corpus = WORK / target / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[target]()):
        (corpus / f"seed-{number:03}").write_bytes(seed)
    log = WORK / target / "log"
    arguments = [f"-max_total_time={max(1, round(seconds))}", "-print_final_stats=1", *LIMITS]
    arguments += ["-keep_seed=1", f"-artifact_prefix={WORK / target}/"]
    with log.open("wb") as output:
        done = subprocess.run(
            [sys.executable, "-m", "fuzz.drive", target, *arguments, str(corpus)],
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    text = log.read_text(errors="replace")
    print(f"{target + ':':12}{figures(text)}", flush=True)
    if done.returncode == 0:
        return True
    print(re.sub(r"^INFO: .*\n|^#\d.*\n", "", text, flags=re.MULTILINE)[-6000:])
    reproducer = re.search(r"Test unit written to (\S+)", text)
    if reproducer:
        print(
            f"reproduce: {sys.executable} -m fuzz {target} --reproduce {reproducer[1]}", flush=True
        )
    return False


def figures(log: str) -> str:
    """Return libFuzzer's statistics in one line."""
    executions = re.search(r"stat::number_of_executed_units: *(\d+)", log)
    speed = re.search(r"stat::average_exec_per_sec: *(\d+)", log)
    covered = re.findall(r" cov: (\d+) ft: \d+ corp: (\d+)/", log)
    parts = []
    if executions and speed:
        parts.append(f"{int(executions[1]):,} executions, {int(speed[1]):,}/s")
    if covered:
        parts.append(f"coverage {covered[-1][0]} by {covered[-1][1]} inputs")
    return ", ".join(parts) or "no figures"


def reproduce(target: str, file: str) -> bool:
    """Run one target once on this input; return True if no fault was found."""
    command = [sys.executable, "-m", "fuzz.drive", target, *LIMITS, file]
    return subprocess.run(command, check=False).returncode == 0


def main() -> int:
    """Return the exit status: 1 if a target failed."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("targets", metavar="TARGET", nargs="*", help=", ".join(SEEDS))
    parser.add_argument(
        "--seconds", type=float, default=60, help="for all targets together (%(default)s)"
    )
    parser.add_argument("--reproduce", metavar="FILE", help="run one target once on this input")
    arguments = parser.parse_args()
    targets = arguments.targets or list(SEEDS)
    if not set(targets) <= set(SEEDS):
        parser.error(f"unknown target; choose from {', '.join(SEEDS)}")
    if arguments.reproduce:
        if len(targets) != 1:
            parser.error("--reproduce requires exactly one target")
        return 0 if reproduce(targets[0], arguments.reproduce) else 1
    clean = [run(target, arguments.seconds / len(targets)) for target in targets]
    return 0 if all(clean) else 1


if __name__ == "__main__":
    sys.exit(main())
