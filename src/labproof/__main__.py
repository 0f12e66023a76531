"""`python -m labproof`."""

from labproof.cli import main

raise SystemExit(main())
