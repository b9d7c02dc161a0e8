"""`python -m lucidcell` is the command line; so is `torchrun -m lucidcell`."""

from lucidcell.cli import main

main()
