"""What both trees stand on: data, randomness, files and pictures in NumPy. It knows no framework.

Every package of ours imports this one first. Where `python -m` runs one of our commands, these are the first lines of
ours that run, so the process is set up here. An import by anything else, a notebook for instance, changes nothing.
"""

import sys

if getattr(sys, "argv", [""])[:1] == ["-m"]:  # as long as Python looks for the module of `python -m`
    from ddpm_shared import start

    start.begin()
