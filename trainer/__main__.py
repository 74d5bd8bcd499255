"""`python -m trainer`, so that `torchrun -m trainer` starts the same command."""

from trainer.cli import main

main(prog_name="bert-train")
