"""`python -m pubsub.command` is the `zoolog` command."""

from pubsub.command.main import main

main()
