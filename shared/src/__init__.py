"""What both trees stand on: data, randomness, files and pictures in NumPy. It knows no framework."""
