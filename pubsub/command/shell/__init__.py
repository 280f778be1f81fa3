"""The coordination shell: zkCli's commands, in one call or interactively.

console   the client behind the commands, and what it prints      command  what a command is
nodes     create, get, set, ls, delete ...                        access   who may do what
watching  events as they come                                     quota    limits of subtrees
ensemble  configuration of the ensemble                           table    all of them
prompt    lines, history, completion
alone     what of the loop can be given alone
text      what zkCli prints, to the letter where scripts read it
"""
