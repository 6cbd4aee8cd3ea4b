"""Parity as proof: every number of the model, computed by PyTorch, by TensorFlow and by the float64 oracle.

    make parity                       the table, on this machine
    make parity ARGS="--mutations"    and the faults that it was shown to catch

One file a subject: schedule, engine, layers, network, optimizer, data, pictures, training, sampling, bound, colour and
more. Each declares its quantities (quantities.py), which are the same functions for all three sides (sides.py), within
the tolerances of tolerances.py.
tests/test_parity.py holds the suite to them; tests/test_mutations.py plants each fault of faults.py in one tree
(mutations.py) and holds the suite to noticing.
"""

import ddpm_shared  # noqa: F401 (it sets up the process of a command)
