"""The `zoolog` command: one module per group of subcommands, loaded when it is asked for."""
