"""The command lines of both trees. One file per command has its flags, its plan and the loop around the mathematics."""
