"""Right answers to the notebooks' exercises and usual mistakes, each with what its check says (None: right)."""
