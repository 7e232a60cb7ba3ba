"""Completion in shells: commands and flags by click's own machinery, installed models by a look into the store."""

from __future__ import annotations

import os

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class, get_completion_class

from squish import console

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_SQUISH_COMPLETE"

_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' line="${COMP_LINE:0:COMP_POINT}" response completion before
    # Bash takes a colon for the end of a word; our model names have one. So the words are made from the line itself.
    response=$(env COMP_WORDS="$line" COMP_CWORD="$COMP_CWORD" %(complete_var)s=bash_complete "$1")
    before="${line##*[[:space:]]}"
    COMPREPLY=()
    for completion in $response; do
        local kind="${completion%%%%,*}" value="${completion#*,}"
        if [[ $kind == dir || $kind == file ]]; then
            COMPREPLY=()
            compopt -o default
        elif [[ $kind == plain ]]; then
            if [[ $before == *:* ]]; then
                value="${value#"${before%%"${before##*:}"}"}"
            fi
            COMPREPLY+=("$value")
        fi
    done
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class ColonBash(BashComplete):
    """Bash, for words that have a colon in them."""

    source_template = _BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_WORDS"]
        words = line.split()[1:]
        incomplete = words.pop() if words and not line[-1:].isspace() else ""
        return words, incomplete

    @staticmethod
    def _check_version() -> None:
        """Click starts a bash to ask for its version; ours is sourced by the one that matters."""


def prepare() -> None:
    """Tell click of our bash, where a shell has called the program to complete."""
    if VARIABLE in os.environ:
        add_completion_class(ColonBash)


def complete_model(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Installed models whose names begin so. Whatever is wrong, completion stays silent."""
    from squish.config.settings import Settings
    from squish.errors import SquishError
    from squish.models.store import Store

    try:
        models = Store(Settings.from_environment().cache_dir).list()
    except SquishError:
        return []
    return [CompletionItem(model.id) for model in models if model.id.startswith(incomplete)]


def complete_source(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What can be pulled: names of the catalog, and what is on the disk."""
    from squish.models import catalog

    if incomplete.startswith((".", "/", "~")):
        return [CompletionItem(incomplete, type="file")]
    return [CompletionItem(entry.id) for entry in catalog.entries() if entry.id.startswith(incomplete)]


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    It completes commands, flags and the names of installed models.

    \b
    bash:  echo 'eval "$(squish completion bash)"' >> ~/.bashrc
    zsh:   echo 'eval "$(squish completion zsh)"' >> ~/.zshrc
    fish:  squish completion fish > ~/.config/fish/completions/squish.fish
    """
    root = click.get_current_context().find_root()
    kind = ColonBash if shell == "bash" else get_completion_class(shell)
    assert kind is not None
    console.out(kind(root.command, {}, "squish", VARIABLE).source())
