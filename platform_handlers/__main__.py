"""`python -m platform_handlers` is `byok`."""

from platform_handlers.cli import main

main()
