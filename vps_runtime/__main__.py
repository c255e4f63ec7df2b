"""`python -m vps_runtime` is `byok-vps`."""

from vps_runtime.cli import main

main()
