"""`python -m bench.konnectivity`: our Konnectivity beside its peers, in one run. Prints medians.

Peers: upstream's binaries where KONNECTIVITY_UPSTREAM_BIN names their folder (proxy-server, proxy-agent), each of them
with one end of ours, and OpenSSH `-L` where sshd is installed. The machine is shared by load, tunnel and target, so
read the ratios. Options: `--runs 7 --size 256 --peers ours,upstream,...`.
"""

import argparse
import contextlib
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import konnectivity_load as load
from bench import konnectivity_peers as peers
from bench.konnectivity_load import Targets, Way

Results = dict[str, list[float]]
Step = Callable[[], dict[str, float]]

# figure, the bound of its ratio to upstream (ours / upstream), whether more is better
BOUNDS = (
    ("down MB/s", 2.0, True),
    ("up MB/s", 2.0, True),
    ("down CPU s/GiB", 0.5, False),
    ("up CPU s/GiB", 0.5, False),
    ("connects/s x1", 1.0, True),
    ("connects/s x32", 1.0, True),
    ("rtt beside bulk p99 ms", 0.25, False),
)


def steps(way: Way, targets: Targets, options: argparse.Namespace) -> list[Step]:
    size = options.size * load.MIB
    return [
        lambda: load.download(way, size),
        lambda: load.upload(way, size),
        lambda: load.connects(way, options.seconds, 1),
        lambda: load.connects(way, options.seconds, 32),
        lambda: load.round_trips(way, options.seconds),
        lambda: load.round_trips_beside_bulk(way, options.seconds),
        lambda: load.idle_memory(way, 300),
    ]


def promises(way: Way, targets: Targets) -> list[Step]:
    return [
        lambda: load.half_closes(way, 20),
        lambda: load.greetings(way, 300),
        lambda: load.truncated_uploads(way, targets, 15),
        lambda: load.stalls(way),
    ]


@contextlib.contextmanager
def opened(name: str, folder: Path, targets: Targets) -> Iterator[Way]:
    upstream = os.environ.get(peers.BINARIES, "")
    ends = {
        "ours": ("", ""),
        "upstream": (upstream, upstream),
        "ours+their agent": ("", upstream),
        "their server+ours": (upstream, ""),
    }
    if name == "openssh":
        with peers.openssh(folder, targets) as way:
            yield way
    else:
        with peers.konnectivity(name, folder, targets, *ends[name]) as way:
            yield way


def available() -> list[str]:
    names = ["ours"]
    if os.environ.get(peers.BINARIES):
        names += ["upstream", "ours+their agent", "their server+ours"]
    if shutil.which("ssh") and (shutil.which("sshd") or Path("/usr/sbin/sshd").exists()):
        names.append("openssh")
    return names


def measure(name: str, results: Results, folder: Path, targets: Targets, options: argparse.Namespace) -> None:
    with opened(name, folder, targets) as way:
        for step in steps(way, targets, options):
            _record(results, step)


def check_promises(name: str, results: Results, folder: Path, targets: Targets) -> None:
    with opened(name, folder, targets) as way:
        for step in promises(way, targets):
            _record(results, step)


def _record(results: Results, step: Step) -> None:
    try:
        found = step()
    except OSError as error:
        print(f"  failed: {error}")
        return
    for figure, value in found.items():
        results.setdefault(figure, []).append(value)


def print_table(table: dict[str, Results]) -> None:
    figures = list(dict.fromkeys(figure for results in table.values() for figure in results))
    width = max(map(len, figures)) + 2
    print(" " * width + "".join(f"{name:>19}" for name in table))
    for figure in figures:
        cells = (
            f"{statistics.median(results[figure]):19.2f}" if figure in results else " " * 18 + "-"
            for results in table.values()
        )
        print(f"{figure:<{width}}" + "".join(cells))


def print_verdict(table: dict[str, Results]) -> None:
    if "upstream" not in table:
        print(f"\n{peers.BINARIES} is not set: no comparison with upstream's binaries")
        return
    print("\nours / upstream")
    for figure, bound, more_is_better in BOUNDS:
        if figure not in table["ours"] or figure not in table["upstream"]:
            continue
        ratio = statistics.median(table["ours"][figure]) / max(statistics.median(table["upstream"][figure]), 1e-9)
        kept = ratio >= bound if more_is_better else ratio <= bound
        wanted = f"{'>=' if more_is_better else '<='} {bound:g}"
        print(f"  {figure:<24}{ratio:7.2f}   wanted {wanted}: {'yes' if kept else 'NO'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="runs of every figure; medians are printed")
    parser.add_argument("--size", type=int, default=256, help="MiB per bulk transfer")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each timed figure")
    parser.add_argument("--peers", default=",".join(available()), help="comma list; default: all that are there")
    parser.add_argument("--no-promises", action="store_true", help="figures only")
    options = parser.parse_args()
    names = options.peers.split(",")
    table: dict[str, Results] = {name: {} for name in names}
    with Targets() as targets:
        for run in range(options.runs):
            # Peers take turns within a run, so that a noisy minute hits all of them.
            for name in names:
                with tempfile.TemporaryDirectory() as folder:
                    peers.write_certificates(Path(folder))
                    print(f"run {run + 1}/{options.runs}: {name}", flush=True)
                    measure(name, table[name], Path(folder), targets, options)
        for name in [] if options.no_promises else names:
            with tempfile.TemporaryDirectory() as folder:
                peers.write_certificates(Path(folder))
                print(f"promises: {name}", flush=True)
                check_promises(name, table[name], Path(folder), targets)
    print()
    print_table(table)
    print_verdict(table)


if __name__ == "__main__":
    main()
