"""The `miniplane` command: its words, and who does what they say.

My job: arguments in, exit code out; one clear line for each error. I own no state; each command's work is in the module
of its noun, imported when it is asked for, so that `miniplane status` starts in no time. Exit codes: 0 done, 1 it could
not be done, 2 wrong usage, 3 (`status`) the cluster is down, 4 (`status`) it runs and is not well.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from miniplane import __version__
from miniplane.errors import MiniplaneError, OptionsError
from miniplane.state import DEFAULT_NAME, Egress, StateDir, Storage, Topology

Run = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    run: Run = options.run
    try:
        return run(options)
    except MiniplaneError as error:
        print(f"miniplane: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


class _Parser(argparse.ArgumentParser):
    """argparse that ends a usage error with where to look on."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    top = _Parser("miniplane", description="A Kubernetes control plane and its nodes, as processes of yours.")
    top.add_argument("--version", action="version", version=f"miniplane {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    for add in _COMMANDS:
        add(commands)
    return top


def _command(commands: Any, name: str, text: str, run: Run, cluster: bool = True) -> argparse.ArgumentParser:
    added: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    if cluster:
        added.add_argument("--name", default=DEFAULT_NAME, help="which cluster, if there are several")
        added.add_argument("--state-dir", type=Path, default=Path("run"), metavar="DIR",
                           help="where clusters keep their files (default: ./run)")  # fmt: skip
    added.set_defaults(run=run)
    return added


def _add_up(commands: Any) -> None:
    up = _command(commands, "up", "start the cluster and wait until it is ready", _up)
    up.add_argument("--nodes", type=int, metavar="N", help="how many nodes (1)")
    up.add_argument("--kubelet-ca", choices=("on", "off"), help="verify the kubelets' serving certificates (on)")
    up.add_argument("--bind-address", metavar="IP", help="where the API server listens (127.0.0.1)")
    up.add_argument("--secure-port", type=int, metavar="PORT", help="its port; 0 for any (443 if allowed, else 6443)")
    up.add_argument("--san", dest="sans", action="append", metavar="NAME|IP", help="another name of the API server")
    up.add_argument("--storage", choices=[one.value for one in Storage], help="what keeps the objects (sqlite)")
    up.add_argument("--egress", choices=[one.value for one in Egress],
                    help="how the API server reaches nodes (direct); the ssh ones are deprecated")  # fmt: skip
    up.add_argument("--topology", choices=[one.value for one in Topology],
                    help="where nodes are: on loopback (local), or behind an untrusted network (netns)")  # fmt: skip
    up.add_argument("--config", type=Path, metavar="FILE", help="these settings, and extraArgs, as YAML; flags win")
    up.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS", help="how long to wait until ready (60)")
    up.add_argument("--quiet", action="store_true", help="say nothing unless it goes wrong")
    up.add_argument("--json", action="store_true", help="say where the cluster is, as JSON")


def _up(options: argparse.Namespace) -> int:
    from miniplane.commands import up

    return up(_state(options), _given(options), options)


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """The settings asked for: the configuration file's, and over them the flags'."""
    from miniplane.configfile import load

    given: dict[str, Any] = load(options.config) if options.config else {}
    flags = {
        "nodes": options.nodes,
        "kubelet_ca": None if options.kubelet_ca is None else options.kubelet_ca == "on",
        "bind_address": options.bind_address,
        "secure_port": options.secure_port,
        "storage": None if options.storage is None else Storage(options.storage),
        "egress": None if options.egress is None else Egress(options.egress),
        "topology": None if options.topology is None else Topology(options.topology),
        "sans": None if options.sans is None else tuple(options.sans),
    }
    if options.name != DEFAULT_NAME:
        given["name"] = options.name
    return given | {key: value for key, value in flags.items() if value is not None}


def _add_down(commands: Any) -> None:
    down = _command(commands, "down", "end every process of the cluster; its files stay", _down)
    down.add_argument("--purge", action="store_true", help="remove its files, too")


def _down(options: argparse.Namespace) -> int:
    from miniplane.commands import down

    return down(_state(options), options.purge)


def _add_status(commands: Any) -> None:
    status = _command(commands, "status", "what runs, since when, how often it was started again", _status)
    status.add_argument("--json", action="store_true")


def _status(options: argparse.Namespace) -> int:
    from miniplane.status import status

    return status(_state(options), as_json=options.json)


def _add_restart(commands: Any) -> None:
    restart = _command(commands, "restart", "end one process and start it again", _restart)
    restart.add_argument("process", metavar="PROCESS")


def _restart(options: argparse.Namespace) -> int:
    from miniplane.control import ask

    ask(_state(options), {"do": "restart", "process": options.process})
    print(f"{options.process} restarted")
    return 0


def _add_logs(commands: Any) -> None:
    logs = _command(commands, "logs", "the log of one process (all of them without a name)", _logs)
    logs.add_argument("process", nargs="?", metavar="PROCESS")
    logs.add_argument("-f", "--follow", action="store_true", help="go on as lines come")
    logs.add_argument("--tail", type=int, metavar="N", help="only the last N lines")


def _logs(options: argparse.Namespace) -> int:
    from miniplane.logs import show

    return show(_state(options), options.process, follow=options.follow, tail=options.tail)


def _add_export(commands: Any) -> None:
    export = commands.add_parser("export", help="copy what others need to see", description="Copy what others need.")
    kinds = export.add_subparsers(metavar="WHAT", required=True, parser_class=_Parser)
    logs = _command(kinds, "logs", "logs, status and objects into a folder; no keys, tokens or secrets", _export_logs)
    logs.add_argument("directory", type=Path, metavar="DIR")


def _export_logs(options: argparse.Namespace) -> int:
    from miniplane.export import export_logs

    return export_logs(_state(options), options.directory)


def _add_kubeconfig(commands: Any) -> None:
    kubeconfig = _command(commands, "kubeconfig", "print the admin kubeconfig, or merge it into your own", _kubeconfig)
    how = kubeconfig.add_mutually_exclusive_group()
    how.add_argument("--merge", action="store_true", help="into $KUBECONFIG or ~/.kube/config, and switch to it")
    how.add_argument("--print", action="store_true", help="print it (default)")
    how.add_argument("--remove", action="store_true", help="take a merged context out again")


def _kubeconfig(options: argparse.Namespace) -> int:
    from miniplane.commands import merge_kubeconfig, print_kubeconfig, remove_kubeconfig

    state = _state(options)
    if options.merge:
        return merge_kubeconfig(state)
    return remove_kubeconfig(state) if options.remove else print_kubeconfig(state)


def _add_doctor(commands: Any) -> None:
    doctor = _command(commands, "doctor", "what this machine allows, and what follows", _doctor, cluster=False)
    doctor.add_argument("--json", action="store_true")


def _doctor(options: argparse.Namespace) -> int:
    from miniplane.doctor import doctor

    return doctor(as_json=options.json)


def _add_image(commands: Any) -> None:
    image = commands.add_parser("image", help="images that containers may name", description="Images of a cluster.")
    actions = image.add_subparsers(metavar="ACTION", required=True, parser_class=_Parser)
    add = _command(actions, "import", "unpack an archive of `docker save` or an OCI layout", _image_import)
    add.add_argument("archive", type=Path, metavar="FILE.tar")
    add.add_argument("--tag", metavar="NAME:TAG", help="what to call it, if the archive does not say")
    listed = _command(actions, "list", "what was imported", _image_list)
    listed.add_argument("--json", action="store_true")
    remove = _command(actions, "remove", "forget an image, and its files if no other name has them", _image_remove)
    remove.add_argument("reference", metavar="NAME:TAG")


def _image_import(options: argparse.Namespace) -> int:
    from miniplane.images import ImageStore

    for reference in ImageStore(_state(options).images).import_archive(options.archive, options.tag):
        print(f"imported {reference}")
    return 0


def _image_list(options: argparse.Namespace) -> int:
    from miniplane.images import ImageStore, print_images

    print_images(ImageStore(_state(options).images), as_json=options.json)
    return 0


def _image_remove(options: argparse.Namespace) -> int:
    from miniplane.images import ImageStore

    print(f"removed {ImageStore(_state(options).images).remove(options.reference)}")
    return 0


def _add_joining(commands: Any) -> None:
    from miniplane.joining import JoiningCommands

    JoiningCommands(_command, _state).add(commands)


def _add_completion(commands: Any) -> None:
    text = "a script that completes this command: source it in your shell's start file"
    completion = _command(commands, "completion", text, _completion, cluster=False)
    completion.add_argument("shell", choices=("bash", "zsh", "fish"))


def _completion(options: argparse.Namespace) -> int:
    from miniplane.completion import script

    print(script(options.shell, parser()), end="")
    return 0


def _add_version(commands: Any) -> None:
    version = _command(commands, "version", "versions of this program and what it stands on", _version, cluster=False)
    version.add_argument("--json", action="store_true")


def _version(options: argparse.Namespace) -> int:
    from miniplane.commands import version

    return version(as_json=options.json)


def _add_lab(commands: Any) -> None:
    from miniplane.labcommands import add

    add(commands, _command, _state)


_COMMANDS: Final = (
    _add_up, _add_down, _add_status, _add_restart, _add_logs, _add_export, _add_kubeconfig, _add_doctor, _add_image,
    _add_lab, _add_joining, _add_completion, _add_version,
)  # fmt: skip


def _state(options: argparse.Namespace) -> StateDir:
    if options.name != DEFAULT_NAME and "/" in options.name:
        raise OptionsError(f"--name {options.name!r}: a name, not a path")
    return StateDir.of(options.state_dir, options.name)
