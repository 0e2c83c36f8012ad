"""The command line: starts the processes and looks after them."""
