"""The page of `make demo`: demo.html, self-contained, on everything that its commands left in a folder.

    python -m ddpm_shared.demo runs/demo/<utc>

folder.py reads the files there and checks that they belong together; page.py lays them out; command.py is the command
line. Nothing is computed here that the commands compute, and every number comes from their files.
"""
