"""Every command of the shell by name, in the order of its help."""

from pubsub.command.shell import access, ensemble, nodes, quota, watching
from pubsub.command.shell.command import ShellCommand

COMMANDS: dict[str, ShellCommand] = {
    command.name or "": command
    for module in (nodes, access, watching, quota, ensemble)
    for command in module.COMMANDS
}
