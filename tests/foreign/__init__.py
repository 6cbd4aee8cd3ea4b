"""Networks as others write them in plain PyTorch, in their names and layouts: what `make import-torch` is held against.

They are written anew after the public descriptions and interfaces, with the same names of attributes, and know nothing
of ours. That of unet is diffusers' own UNet2DModel, which is installed for other tests.
"""
