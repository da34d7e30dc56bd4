"""`miniplane completion`: shell scripts made from the command's own parser, so that they cannot disagree with it.

My job: words in the order the shell asks for them. Pure.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Words:
    """What may follow one command: further commands, or flags; and a flag's choices, if it has some."""

    commands: Mapping[str, "Words"]
    flags: tuple[str, ...]
    choices: tuple[str, ...]


def words(parser: argparse.ArgumentParser) -> Words:
    commands: dict[str, Words] = {}
    flags: list[str] = []
    choices: list[str] = []
    for action in parser._actions:  # argparse has no public way to its own arguments
        if isinstance(action, argparse._SubParsersAction):
            commands = {name: words(sub) for name, sub in action.choices.items()}
        elif action.option_strings:
            flags += [option for option in action.option_strings if option.startswith("--")]
        elif action.choices:
            choices += [str(choice) for choice in action.choices]
    return Words(commands, tuple(flags), tuple(choices))


def paths(tree: Words, prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Every chain of commands, and what may come next."""
    found = {prefix: (*tree.commands, *tree.choices, *tree.flags)}
    for name, sub in tree.commands.items():
        found |= paths(sub, (*prefix, name))
    return found


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    return _SHELLS[shell](paths(words(parser)))


Chains = Mapping[tuple[str, ...], tuple[str, ...]]


def _bash(chains: Chains) -> str:
    cases = "\n".join(f'        "{" ".join(chain)}") words="{" ".join(next_)}" ;;' for chain, next_ in chains.items())
    return _BASH.replace("@CASES@", cases)


def _zsh(chains: Chains) -> str:
    return "#compdef miniplane\nautoload -U +X bashcompinit && bashcompinit\n" + _bash(chains)


def _fish(chains: Chains) -> str:
    lines = ["complete -c miniplane -f"]
    for chain, next_ in chains.items():
        condition = "__fish_use_subcommand" if not chain else f"__fish_seen_subcommand_from {chain[-1]}"
        for word in next_:
            how = f"-l {word[2:]}" if word.startswith("--") else f"-a {word}"
            lines.append(f"complete -c miniplane -n '{condition}' {how}")
    return "\n".join(lines) + "\n"


_BASH: Final = """\
_miniplane() {
    local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}" chain="" word words=""
    case "$previous" in
        --state-dir|--config) COMPREPLY=($(compgen -f -- "$current")); return ;;
    esac
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case "$word" in
            -*) ;;
            *) chain="${chain:+$chain }$word" ;;
        esac
    done
    case "$chain" in
@CASES@
        "image import"*|"export logs"*) COMPREPLY=($(compgen -f -- "$current")); return ;;
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -F _miniplane miniplane
"""
_SHELLS: Final[Mapping[str, Callable[[Chains], str]]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
