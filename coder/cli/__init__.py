"""The command line: one module per group of commands, each on the door, be it SQL or HTTP."""
