"""Entry points of the images of real engines: from what the operator gives a worker container to the engine's command line.

They run in the engines' own images, with nothing but the standard library and `prfaas_core` beside them.
"""
