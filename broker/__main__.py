"""`python -m broker` is `broker`."""

from __future__ import annotations

import sys

from broker.cli import main

sys.exit(main())
