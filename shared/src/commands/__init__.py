"""The command lines of both trees: one file a command, with its flags, its plan and the run around the mathematics."""
