"""`python -m certs`: issue, check and show a cluster's certificates.

    python -m certs init  --state-dir run --nodes node-1=127.0.10.1
    python -m certs check --state-dir run
    python -m certs show  --state-dir run | FILE…

Exit codes: 0 done (check: all is well), 1 with one line saying what is wrong, 2 wrong usage.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from pathlib import Path

from certs.errors import CertsError
from certs.issuance import Access, Action, Issuance, Outcome
from certs.layout import Layout
from certs.profiles import Cluster, NodeAddress


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except CertsError as error:
        print(f"certs: {error}", file=sys.stderr)
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m certs", description="a cluster's certificates and kubeconfigs")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    init = commands.add_parser("init", help="issue what is missing, renew what is about to expire")
    _state_dir(init)
    init.add_argument("--san", action="append", default=[], metavar="NAME|IP", help="another name of the API server")
    init.add_argument("--service-cidr", type=ip_network, default=ip_network("127.96.0.0/16"))
    init.add_argument("--nodes", type=_nodes, default=(), metavar="NAME=IP,…", help="nodes that get certificates")
    init.add_argument("--etcd", metavar="IP", help="where an etcd of our own listens: it gets certificates, too")
    init.add_argument(
        "--konnectivity", metavar="IP", help="where the Konnectivity server listens"
    )
    init.add_argument("--server", default="https://127.0.0.1:6443", help="the API server's URL in the kubeconfigs")
    init.add_argument("--cluster-name", default="miniplane", help="cluster and context name in the kubeconfigs")
    init.add_argument("--quiet", action="store_true", help="say only what changed")
    init.set_defaults(run=_init)
    check = commands.add_parser("check", help="verify every certificate below a state directory against its CA")
    _state_dir(check)
    check.add_argument("--json", action="store_true")
    check.set_defaults(run=_check)
    show = commands.add_parser("show", help="what certificates say")
    show.add_argument("files", nargs="*", type=Path, metavar="FILE")
    _state_dir(show)
    show.add_argument("--json", action="store_true")
    show.set_defaults(run=_show)
    return parser


def _state_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--state-dir", type=Path, default=Path("run"), metavar="DIR")


def _nodes(value: str) -> tuple[NodeAddress, ...]:
    nodes = []
    for part in filter(None, value.split(",")):
        name, equals, ip = part.partition("=")
        try:
            nodes.append(NodeAddress(name, str(ip_address(ip))))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{part!r} is not NAME=IP") from None
        if not equals or not name:
            raise argparse.ArgumentTypeError(f"{part!r} is not NAME=IP")
    return tuple(nodes)


def _init(options: argparse.Namespace) -> int:
    cluster = Cluster(options.service_cidr, tuple(options.san), options.nodes, options.etcd, options.konnectivity)
    access = Access(options.cluster_name, options.server)
    layout = Layout(options.state_dir.absolute())
    outcomes = Issuance(layout, cluster, access, datetime.now(UTC)).run()
    if options.quiet:
        outcomes = [outcome for outcome in outcomes if outcome.action is not Action.KEPT]
    print(_table(outcomes, layout.state_dir), end="")
    return 0


def _table(outcomes: Sequence[Outcome], state_dir: Path) -> str:
    rows = [
        (
            outcome.name,
            outcome.action.value + (f" ({outcome.reason})" if outcome.reason else ""),
            f"{outcome.expires:%Y-%m-%d %H:%M}Z" if outcome.expires else "-",
            str(outcome.path.relative_to(state_dir)),
        )
        for outcome in outcomes
    ]
    return columns([("NAME", "ACTION", "EXPIRES", "FILE"), *rows]) if rows else ""


def columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = ("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in lines)


def _check(options: argparse.Namespace) -> int:
    from certs.inspection import check

    findings = check(Layout(options.state_dir.absolute()), datetime.now(UTC))
    if options.json:
        print(json.dumps([finding.as_json() for finding in findings], indent=2))
    else:
        rows = [(finding.name, finding.problem or "ok", finding.path) for finding in findings]
        print(columns([("NAME", "STATE", "FILE"), *rows]), end="")
    return 1 if any(finding.problem for finding in findings) else 0


def _show(options: argparse.Namespace) -> int:
    from certs.inspection import describe, files_of

    files = options.files or files_of(Layout(options.state_dir.absolute()))
    descriptions = [describe(file) for file in files]
    if options.json:
        print(json.dumps([description.as_json() for description in descriptions], indent=2))
    else:
        print("\n".join(description.as_text() for description in descriptions))
    return 0


if __name__ == "__main__":
    sys.exit(main())
