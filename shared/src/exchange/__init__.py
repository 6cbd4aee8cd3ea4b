"""Networks that somebody trained elsewhere in PyTorch, as weights of ours.

    layout = layouts.recognised(shapes, "dit")           # which implementation's names these are
    model = sizes.inferred(layout, shapes, model)        # how large the network is
    weights = convert.converted(layout, tensors, ...)    # the same function by our names, or one sentence why not

A layout is an entry of mappings/<network>.json: names of theirs for every module of ours, and the steps between the
two. Nothing here knows a framework; the steps are exact, so that both networks compute the same numbers.
"""
