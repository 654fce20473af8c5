"""`prfaas evaluate`: policies against each other in the simulator, over scenarios that are data.

`scenarios` says what is run, `arms` by which policy, `running` runs it over seeds, `report` writes docs/evaluation.
"""
