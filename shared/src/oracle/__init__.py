"""The oracle: the mathematics of both trees once more, in float64 NumPy, for tests and notebooks only.

Both trees are tested against it, so it is written from the papers and goes another way than they do wherever there is
one. Neither may import it.
"""
