"""Reference curves: small named runs with three seeds each, kept here and compared with on demand.

    python -m tests.trainer.reference                # train all runs again and say whether they lie within their bands
    python -m tests.trainer.reference topics --seeds 0
    python -m tests.trainer.reference --write        # keep new curves; say in the commit why they are others

On the machine and versions that the curves were made with, an unchanged trainer gives the same values; elsewhere, or
with other draws, a curve must lie within four standard deviations of the seeds. Where each seed makes its leap at
another step ("topics", whose next sentences are learned), that is wide; "world" is the sharper one, of smooth curves.
The data are made anew each time, and their fingerprint is checked, so that a difference is one of the trainer.
"""
