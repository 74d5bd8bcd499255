"""Reference curves: small named runs with three seeds each, kept here and compared with on demand.

    python -m tests.trainer.reference                # train all runs again and say whether they lie within their bands
    python -m tests.trainer.reference topics --seeds 0
    python -m tests.trainer.reference --write        # keep new curves; say in the commit why they are others

The data are made anew each time, and their fingerprint is checked, so that a difference is one of the trainer.
"""
