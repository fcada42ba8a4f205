"""Commands about the options: serve, which takes them all, and settings, which tells them. Both come from one table."""

import inspect
from typing import Annotated, Any

import msgspec
import typer

from unified_memory.cli import views
from unified_memory.cli.command import Target, command, errors_told
from unified_memory.model.errors import InvalidInputError
from unified_memory.settings import OPTIONS, Option, load, read

PANEL = "The service"
commands = typer.Typer()
# As if the environment said nothing.
DEFAULTS = load(environment={})


def _plain(setting: Any) -> Any:
    return setting if setting is None or isinstance(setting, bool | int | float) else str(setting)


def _parameter(option: Option) -> inspect.Parameter:
    flag = "--" + option.name.replace("_", "-")
    setting = getattr(DEFAULTS, option.name)
    # A directory's default depends on the machine: its help tells it.
    default = "" if option.kind == "path" else views.text_of(_plain(setting))
    if option.kind == "size" and setting:
        default = views.size(setting)
    help_text = f"{option.help} (variable: {option.variable}" + (f"; default: {default})" if default else ")")
    annotation: Any
    if option.kind == "bool":
        annotation = Annotated[bool | None, typer.Option(f"{flag}/--no-{flag[2:]}", help=help_text)]
    else:

        def parsed(text: str) -> Any:
            try:
                return read(option, text)
            except InvalidInputError:
                raise typer.BadParameter(f"{text!r} is no {option.kind}") from None

        annotation = Annotated[
            Any, typer.Option(flag, metavar=option.kind.upper(), help=help_text, parser=parsed, show_default=False)
        ]
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _serve(**given: Any) -> None:
    """Run the service until it is stopped with Ctrl-C. What is not given comes from the environment."""
    from unified_memory.server import serve

    with errors_told():
        serve(load(**given))


_serve.__dict__["__signature__"] = inspect.Signature([_parameter(option) for option in OPTIONS])
commands.command("serve", rich_help_panel=PANEL)(_serve)


@command(commands, "settings", remote=False, panel=PANEL)
def settings(target: Target) -> None:
    """Print every option. With its value here, its default, its variable and what it means."""
    here = target.settings()
    told = [
        {
            "name": option.name,
            "variable": option.variable,
            "kind": option.kind,
            "value": _plain(getattr(here, option.name)),
            "default": _plain(getattr(DEFAULTS, option.name)),
            "help": option.help,
        }
        for option in OPTIONS
    ]
    target.show(msgspec.json.encode(told), views.options)
