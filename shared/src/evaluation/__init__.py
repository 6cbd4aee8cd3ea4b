"""How good are images? evaluation.json and evaluation.png, the same whatever framework drew them.

    python -m ddpm_shared.evaluation SAMPLES.npz [--reference {train,test}] [--out DIR]

samples.py reads the images, spaces.py chooses the features that a data set is judged by and extractor.py makes them,
metrics.py and neighbours.py make numbers of these, judge.py compares them with real images, picture.py draws,
records.py gives the form of evaluation.json, and command.py is the command line. docs/evaluation.md explains what each
number measures and what it misses.

Nothing is imported here: training needs the judge alone, and only sometimes.
"""
